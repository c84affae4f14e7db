"""Runs one of `doors` under a coverage-guided fuzzer for FUZZ_SECONDS: `python -m fuzz.run DOOR [libFuzzer's options]`.

It starts with the inputs of the corpus, and keeps new ones that reach new code in `.fuzz`, so that the next run goes
on. An input that ends in an unexpected error, takes long or takes much memory is written there too, as `crash-*`,
`timeout-*` or `oom-*`; mend the fault and copy the input into the corpus.
"""

import logging
import os
import sys
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL", "image_analysis_api", "image_analysis_worker", "python_multipart"]):
    from PIL import Image

    from fuzz.doors import DOORS

    Image.init()  # imports the readers of all formats

CORPUS = Path(__file__).parent / "corpus"
KEPT = Path(__file__).parents[2] / ".fuzz"
MAX_LENGTH = 8192
LIMITS = ["-timeout=10", "-rss_limit_mb=2048"]
SECONDS = "60"


def main() -> None:
    """Fuzz until the time of the options is over, or to the first finding."""
    door, *options = sys.argv[1:]
    kept = KEPT / door
    kept.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")  # as in the services
    logging.disable()
    folders = [str(kept), str(CORPUS / door)]
    time = f"-max_total_time={os.environ.get('FUZZ_SECONDS') or SECONDS}"
    output = ["-print_final_stats=1", f"-artifact_prefix={KEPT / door}-"]
    arguments = [time, f"-max_len={MAX_LENGTH}", *LIMITS, *output, *options, *folders]
    atheris.Setup([sys.argv[0], *arguments], DOORS[door])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
