from model_compression.__main__ import historic

raise SystemExit(historic())
