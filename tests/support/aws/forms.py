"""An upload by a form, as a browser does it."""

import urllib.request


def post(form: dict, content: bytes) -> None:
    line = "hevcq-boundary"
    parts = [
        f'--{line}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in form["fields"].items()
    ]
    head = f'--{line}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    body = b"".join(parts) + head.encode() + content + f"\r\n--{line}--\r\n".encode()
    request = urllib.request.Request(form["url"], data=body)
    request.add_header("Content-Type", f"multipart/form-data; boundary={line}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status in {200, 201, 204}
