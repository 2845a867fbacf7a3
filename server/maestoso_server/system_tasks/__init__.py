"""Tasks that the server does itself. They come through the ordinary queue, as to any worker."""
