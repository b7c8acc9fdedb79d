"""The emulator of S3, SNS, SQS and DynamoDB of compose.yaml: `emulator.py HOST PORT`.

moto's server with the corrections the tests use (tests/support/aws/shims.py says which, and why). It
keeps everything in memory and asks for no password: for trying out, never for videos that matter.
"""

import signal
import sys

import shims

SIGNALS = {signal.SIGTERM, signal.SIGINT}


def main() -> int:
    """Serve until told to stop."""
    # Blocked before any thread begins, so that only the wait below takes them.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    server, address = shims.serve(sys.argv[1], int(sys.argv[2]))
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    signal.sigwait(SIGNALS)
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
