"""`python -m ispvm_agent`."""

import sys

from ispvm_agent.cli import main

sys.exit(main())
