"""`python -m runtime webcam` and `python -m runtime doctor`: the commands of the runtime."""

from __future__ import annotations

import sys

from runtime import doctor, webcam

COMMANDS = {"webcam": webcam.main, "doctor": doctor.main}
HELP = """\
usage: python -m runtime COMMAND [options]

  webcam   show, save and print the pose in pictures, videos and cameras
  doctor   what this machine can run: engines, devices, cameras and models, each one tried

python -m runtime COMMAND --help teaches the rest.
"""


def main(argv: list[str] | None = None) -> int:
    """Hand over to the command; a wrong one is a usage error."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] in (["-h"], ["--help"]):
        print(HELP, end="")
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        given = f"'{arguments[0]}' is no command" if arguments else "a command is needed"
        print(f"error: {given}, legal are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return COMMANDS[arguments[0]](arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
