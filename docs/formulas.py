"""A Markdown extension, which sets formulas as MathML: browsers show it without a script or a font.

`pymdownx.arithmatex` finds the formulas, from `$` to `$`. `make docs` puts this folder on the path.
"""

import html

import latex2mathml.converter
import markdown


class Formulas(markdown.Extension):
    """Converts what `pymdownx.arithmatex` with `generic: true` has found."""

    def extendMarkdown(self, md):
        """Runs after the patterns that find formulas within a line."""
        md.treeprocessors.register(_Converter(md), "formulas", 0)


class _Converter(markdown.treeprocessors.Treeprocessor):
    def run(self, root):
        for element in list(root.iter()):
            if element.get("class") == "arithmatex":
                tex = html.unescape(element.text)[2:-2]  # without \( and \), or \[ and \]
                element.text = None
                display = "block" if element.tag == "div" else "inline"
                element.append(latex2mathml.converter.convert_to_element(tex, display=display))
