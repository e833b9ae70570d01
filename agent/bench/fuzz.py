"""Coverage-guided fuzzing of the decoder (Atheris): no crash, no hang, no unbounded memory, one meaning.

What is checked stands in agent/tests/decoder_truth.py; the unit tests replay agent/tests/corpus/. Runs in the
environment of requirements/bench.txt: `make fuzz MINUTES=10`. With --plant-a-bug no length is checked; it must fail.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["ispvm_agent.routeros.wire"]):
    from ispvm_agent.routeros import wire

from decoder_truth import any_length, holds

if __name__ == "__main__":
    if "--plant-a-bug" in sys.argv:
        sys.argv.remove("--plant-a-bug")
        wire.__dict__["_value_lengths"] = any_length
    atheris.Setup(sys.argv, holds)
    atheris.Fuzz()
