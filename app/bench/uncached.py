"""A second server of the same installation that keeps no answer: python -m bench.uncached SOCKET

As the user ispvm. What it takes to make an answer can so be measured as often as one likes.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from ispvm import settings as config
from ispvm.series.cache import Answers, Cache
from ispvm.server import create_app

if __name__ == "__main__":
    app = create_app(config.load(config.DEFAULT_PATH))
    nothing: Cache[Any] = Cache(seconds=0)
    app.state.overviews, app.state.answers = nothing, Answers(None)
    uvicorn.run(app, uds=sys.argv[1], loop="uvloop", http="httptools", log_config=None)
