"""Write the golden pages anew: `python -m tests.golden`."""

from tests.golden.pages import FOLDER, pages

for name, text in pages().items():
    (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"wrote {name}")
