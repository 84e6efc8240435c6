from model_compression.cli.classic import main

raise SystemExit(main())
