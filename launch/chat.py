"""Asks the base and the trained policy of a run the same questions, in a terminal or on a page.

  python launch/chat.py --workdir=runs/permix
  python launch/chat.py --workdir=runs/permix --web

In the terminal, a line "/persona You are a pirate." sets the persona, and /help says what else
there is. Each policy sees the conversation with its own answers. --web serves a page to this
machine's browser instead, until Ctrl-C. Takes the newest checkpoint, unless --step names another.
"""

from collections.abc import Sequence

from permix_jax.app.cli import Parser, fail, step_named
from permix_jax.core.places import place_of


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--workdir", type=place_of, required=True, metavar="DIR", help="workdir of a run")
    add("--step", metavar="N", help="checkpoint to take, or best; default: the newest")
    add("--tensor", type=int, default=1, metavar="N", help="devices that share the policies")
    add("--max_new_tokens", type=int, default=256, metavar="N", help="the longest answer")
    add("--temperature", type=float, default=0.0, metavar="T", help="of the draws; 0: greedy")
    add("--seed", type=int, default=0, metavar="N", help="of the draws")
    add("--web", action="store_true", help="serve a page in place of the terminal")
    add("--port", type=int, default=8765, metavar="N", help="of the page; 0: any free one")
    a = parser.parse_args(argv)
    if a.max_new_tokens < 1:
        fail(f"--max_new_tokens is {a.max_new_tokens}; use 1 or more")
    if not 0 <= a.temperature < float("inf"):
        fail(f"--temperature is {a.temperature}; use 0 or more")

    from permix_jax.app.chat import open_chat

    try:
        chat = open_chat(a.workdir, step_named(a.step), a.tensor)
        if a.web:
            _serve(chat, a)
        else:
            _talk(chat, a)
    except (OSError, ValueError) as error:
        fail(str(error))


def _talk(chat, a) -> None:
    from permix_jax.app.terminal import HELP, converse

    try:
        import readline  # noqa: F401  the arrow keys then edit a line and go back to earlier ones
    except ImportError:  # not everywhere
        pass
    print(f"{a.workdir}: base and trained policy\n{HELP}\n")
    converse(chat, input, print, a.max_new_tokens, a.temperature, a.seed)
    print()


def _serve(chat, a) -> None:
    from permix_jax.app.chat_page import serve_chat

    with serve_chat(chat, str(a.workdir), a.port, a.max_new_tokens) as server:
        print(f"open http://127.0.0.1:{server.server_port}/ in a browser; Ctrl-C ends", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
