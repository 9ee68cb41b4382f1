"""Real files of each kind, written by the usual libraries, good ones and hostile ones.

Every word of a good file is unique (`word00042`), so what a converter lost can be counted.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass
from html import escape
from pathlib import Path

SECTION_WORDS = 60


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with a paragraph, a list and a table of unique words below it."""

    heading: str
    paragraph: str
    items: tuple[str, ...]
    table: tuple[tuple[str, ...], ...]

    @property
    def words(self) -> list[str]:
        """Every planted word."""
        cells = [cell for row in self.table for cell in row]
        return " ".join([self.heading, self.paragraph, *self.items, *cells]).replace(".", "").split()


def sections(count: int) -> list[Section]:
    """Return so many sections; no word stands in two places."""
    number = 0

    def words(many: int) -> str:
        nonlocal number
        number += many
        return " ".join(f"word{n:05d}" for n in range(number - many, number))

    return [
        Section(
            words(3),
            f"{words(SECTION_WORDS)}.",
            tuple(words(4) for _ in range(3)),
            tuple(tuple(words(1) for _ in range(3)) for _ in range(3)),
        )
        for _ in range(count)
    ]


def write_html(path: Path, content: list[Section]) -> None:
    """Write a page with a menu, a script and a remote image around the text."""
    parts = []
    for section in content:
        rows = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in section.table)
        items = "".join(f"<li>{escape(item)}</li>" for item in section.items)
        parts.append(f"<h2>{escape(section.heading)}</h2><p>{escape(section.paragraph)}</p><ul>{items}</ul>")
        parts.append(f"<table>{rows}</table>")
    path.write_text(
        "<html><head><title>Manual</title><style>p{color:red}</style></head><body><nav>menuentry</nav>"
        '<img src="http://127.0.0.1:9/pixel.png"><script>scripttext()</script>' + "".join(parts) + "</body></html>"
    )


def write_pdf(path: Path, content: list[Section], *, columns: int = 1) -> None:
    """Write a PDF with headings by size, bullets and ruled tables, in one column or two."""
    from fpdf import FPDF

    pdf = FPDF()
    pdf.add_page()
    if columns > 1:
        # Tables are left to the one-column file: text that flows in columns is what is tried here.
        with pdf.text_columns(ncols=columns, gutter=10) as flow:
            for section in content:
                pdf.set_font("helvetica", "B", 14)
                flow.write(section.heading + "\n")
                pdf.set_font("helvetica", "", 10)
                flow.write("\n".join([section.paragraph, *section.items]) + "\n")
                flow.write("\n".join(" ".join(row) for row in section.table) + "\n\n")
    else:
        for section in content:
            pdf.set_font("helvetica", "B", 16)
            pdf.multi_cell(0, 10, section.heading, new_x="LMARGIN", new_y="NEXT")
            pdf.set_font("helvetica", "", 11)
            pdf.multi_cell(0, 6, section.paragraph, new_x="LMARGIN", new_y="NEXT")
            for item in section.items:
                pdf.multi_cell(0, 6, f"- {item}", new_x="LMARGIN", new_y="NEXT")
            with pdf.table() as table:
                for row in section.table:
                    table.row(row)
    path.write_bytes(bytes(pdf.output()))


def write_docx(path: Path, content: list[Section]) -> None:
    """Write a Word file with heading styles, bullets and tables."""
    import docx

    document = docx.Document()
    for section in content:
        document.add_heading(section.heading, level=2)
        document.add_paragraph(section.paragraph)
        for item in section.items:
            document.add_paragraph(item, style="List Bullet")
        table = document.add_table(rows=0, cols=3)
        for row in section.table:
            for cell, text in zip(table.add_row().cells, row, strict=True):
                cell.text = text
    document.save(str(path))


def write_pptx(path: Path, content: list[Section]) -> None:
    """Write slides: a title, the paragraph and the list as bullets, the table below, words in the notes too."""
    from pptx import Presentation
    from pptx.util import Inches

    deck = Presentation()
    for section in content:
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = section.heading
        slide.placeholders[1].text = "\n".join([section.paragraph, *section.items])
        rows = section.table
        frame = slide.shapes.add_table(len(rows), len(rows[0]), Inches(1), Inches(5), Inches(8), Inches(1))
        for i, row in enumerate(rows):
            for j, cell in enumerate(row):
                frame.table.cell(i, j).text = cell
    deck.save(str(path))


def write_xlsx(path: Path, content: list[Section]) -> None:
    """Write one sheet a section: its words in cells, a table below."""
    from openpyxl import Workbook

    book = Workbook()
    book.remove(book.active)
    for section in content:
        sheet = book.create_sheet(section.heading.split()[0])
        for line in (section.heading, section.paragraph, *section.items):
            sheet.append([line])
        for row in section.table:
            sheet.append(list(row))
    book.save(path)


def write_zip_bomb_docx(path: Path, unpacked: int) -> None:
    """Write a Word file of some hundred kilobytes whose text unpacks to `unpacked` bytes."""
    good = io.BytesIO()
    import docx

    docx.Document().save(good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            if name != "word/document.xml":
                target.writestr(name, source.read(name))
        with target.open("word/document.xml", "w", force_zip64=True) as part:
            space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
            part.write(f'<?xml version="1.0"?><w:document xmlns:w="{space}"><w:body>'.encode())
            paragraph = b"<w:p><w:r><w:t>bomb</w:t></w:r></w:p>" * 1000
            for _ in range(unpacked // len(paragraph)):
                part.write(paragraph)
            part.write(b"</w:body></w:document>")


def _deflated(megabytes: int, unit: bytes) -> bytes:
    packer = zlib.compressobj(9)
    block = (unit * (1024 * 1024 // len(unit) + 1))[: 1024 * 1024]
    return b"".join([*(packer.compress(block) for _ in range(megabytes)), packer.flush()])


def write_pdf_of_stream(path: Path, stream: bytes, *, filters: int = 1) -> None:
    """Write a PDF of one page whose content is `stream`, deflated `filters` times."""
    names = "[" + "/FlateDecode " * filters + "]"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(stream)}/Filter {names}>>\nstream\n".encode() + stream + b"\nendstream",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out, offsets = bytearray(b"%PDF-1.7\n"), []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{offset:010d} 00000 n \n".encode() for offset in offsets)
    out += f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{table}\n%%EOF\n".encode()
    path.write_bytes(bytes(out))


def write_pdf_bomb(path: Path, megabytes: int) -> None:
    """Write a small PDF whose page unpacks, through two filters, to `megabytes` of drawing orders."""
    orders = b"BT /F1 9 Tf 72 720 Td (bomb) Tj ET\n"
    write_pdf_of_stream(path, zlib.compress(_deflated(megabytes, orders), 9), filters=2)


def write_xxe_docx(path: Path, secret: Path) -> None:
    """Write a Word file whose text is an external entity: the content of `secret`, for a parser that follows it."""
    import docx

    good = io.BytesIO()
    document = docx.Document()
    document.add_paragraph("Before ENTITY after.")
    document.save(good)
    _with_entity(good, path, "word/document.xml", secret)


def write_xxe_xlsx(path: Path, secret: Path) -> None:
    """Write a workbook with an external entity in its shared strings."""
    from openpyxl import Workbook

    good = io.BytesIO()
    book = Workbook()
    book.active.append(["Before ENTITY after.", "plain"])
    book.save(good)
    _with_entity(good, path, "xl/sharedStrings.xml", secret)


def write_laughs_docx(path: Path) -> None:
    """Write a Word file with entities that stand for ten of the one before: a billion words when resolved."""
    import docx

    good = io.BytesIO()
    document = docx.Document()
    document.add_paragraph("Before ENTITY after.")
    document.save(good)
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    _with_doctype(good, path, "word/document.xml", f'<!ENTITY l0 "laugh ">{laughs}', "&l9;")


def _with_entity(source: io.BytesIO, path: Path, part: str, secret: Path) -> None:
    _with_doctype(source, path, part, f'<!ENTITY xxe SYSTEM "{secret.as_uri()}">', "&xxe;")


def _with_doctype(source: io.BytesIO, path: Path, part: str, entities: str, reference: str) -> None:
    with zipfile.ZipFile(source) as good, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in good.namelist():
            data = good.read(name)
            if name == part:
                # The declaration (where there is one) ends at the first "?>"; the doctype has to follow it.
                head, _, body = data.partition(b"?>") if data.startswith(b"<?xml") else (b"", b"", data)
                head = head + b"?>" if head else b'<?xml version="1.0"?>'
                body = body.replace(b"ENTITY", reference.encode())
                data = head + f"<!DOCTYPE r [{entities}]>".encode() + body
            target.writestr(name, data)
