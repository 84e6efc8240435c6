from model_compression.classic.command_line import main

raise SystemExit(main())
