"""`python -m beam_pipeline`: see `--help`."""

import sys

from beam_pipeline.cli import main

sys.exit(main())
