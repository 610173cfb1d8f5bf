"""dtrnet(1) from the program's own --help, so that the two cannot differ: make_man.py PROGRAM OUTPUT."""

import re
import subprocess
import sys
from pathlib import Path

SECTIONS = """.SH EXIT STATUS
0: success; \\fBhealth\\fR: the server works. 1: failure; \\fBhealth\\fR: it does not. 2: wrong flags or input.
.SH SIGNALS
\\fBserve\\fR: SIGTERM or SIGINT ends it once what is in flight is answered, a second one at once;
SIGHUP opens the log anew and reads keys and TLS files again.
.SH EXAMPLES
.nf
dtrnet serve \\-\\-model /srv/models/one \\-\\-port 8000
dtrnet health \\-\\-port 8000
echo '{"context": "The old man sat on the", "continuations": [" bank"]}' | dtrnet score
.fi
"""


def ask(program: str, *args: str) -> str:
    """What the program prints."""
    return subprocess.run([program, *args, "--help"], check=True, capture_output=True, text=True).stdout


def escape(text: str) -> str:
    """Text as roff reads it; no line begins with a control character."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\\&" + text if text.startswith(".") else text


def flags(text: str) -> str:
    """The flags of one command as a list."""
    out = []
    for line in text.splitlines():
        if found := re.match(r"  (--\S+)(?: (\S+))?\s+(.*)", line):
            name, value, about = found.groups()
            out.append(f".TP\n\\fB{escape(name)}\\fR{' ' + escape(value) if value else ''}\n{escape(about)}\n")
    return "".join(out)


def main() -> None:
    """Writes the page."""
    program, output = sys.argv[1:]
    whole = ask(program)
    title = whole.splitlines()[0]
    version, about = re.match(r"dtrnet (\S+): (.*)", title).groups()
    commands = re.findall(r"^  (\w+) +(.*)$", whole, re.M)
    page = f'.TH DTRNET 1 "" "dtrnet {version}" ""\n.SH NAME\ndtrnet \\- {escape(about)}\n'
    page += ".SH SYNOPSIS\n\\fBdtrnet\\fR COMMAND [FLAGS]\n.SH COMMANDS\n"
    page += "".join(f".TP\n\\fB{name}\\fR\n{escape(text)}\n" for name, text in commands)
    tail = ""
    for name, _ in commands:
        text = ask(program, name)
        found = flags(text)
        page += f".SH {name.upper()}\n{escape(text.splitlines()[0].split(': ', 1)[-1])}\n{found}"
        if not tail and "Every flag" in text:
            tail = text[text.index("Every flag") :]
    page += f".SH ENVIRONMENT AND SETTINGS FILE\n{escape(' '.join(tail.split()))}\n{SECTIONS}"
    Path(output).write_text(page)


if __name__ == "__main__":
    main()
