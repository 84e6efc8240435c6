"""`python -m model_compression` is the command `model-compression`."""

from model_compression.cli.main import main

raise SystemExit(main())
