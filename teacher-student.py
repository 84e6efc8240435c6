from model_compression.classic.command import main

raise SystemExit(main())
