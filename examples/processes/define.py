#!/usr/bin/env python3
"""Writes the definition of a class as JSON: define.py RUNTIME FILE [PRELUDE].

In: a script, a WebAssembly module or (for `native`) the name of a module. Out: what PUT
/api/v1/processes/{class} takes, on standard output.
"""

import base64
import json
import sys
from pathlib import Path

runtime, source, *prelude = sys.argv[1:]
if runtime == "native":
    module = source
elif runtime == "wasm":
    module = base64.b64encode(Path(source).read_bytes()).decode()
else:
    module = Path(source).read_text(encoding="utf-8")
definition = {"runtime": runtime, "module": module}
if prelude:
    definition["prelude"] = prelude[0]
json.dump(definition, sys.stdout)
