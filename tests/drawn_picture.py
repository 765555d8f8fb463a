"""A picture drawn for the occasion."""

from PIL import Image, ImageDraw


def draw_picture() -> Image.Image:
    """A house, a tree and the sun over a meadow, 640 × 480."""
    picture = Image.new("RGB", (640, 480), "skyblue")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 320, 640, 480), fill="yellowgreen")
    draw.ellipse((500, 40, 590, 130), fill="gold")
    draw.rectangle((120, 220, 300, 380), fill="firebrick")
    draw.polygon([(100, 220), (210, 130), (320, 220)], fill="saddlebrown")
    draw.rectangle((425, 260, 450, 390), fill="sienna")
    draw.ellipse((370, 150, 505, 290), fill="darkgreen")
    return picture
