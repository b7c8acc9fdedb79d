"""Name the language of a track as players and browsers do."""

from __future__ import annotations

_TWO_LETTERS = {
    "ara": "ar", "bul": "bg", "cat": "ca", "ces": "cs", "cze": "cs", "chi": "zh", "zho": "zh",
    "dan": "da", "deu": "de", "ger": "de", "dut": "nl", "nld": "nl", "ell": "el", "gre": "el",
    "eng": "en", "est": "et", "fin": "fi", "fra": "fr", "fre": "fr", "heb": "he", "hin": "hi",
    "hrv": "hr", "hun": "hu", "ice": "is", "isl": "is", "ind": "id", "ita": "it", "jpn": "ja",
    "kor": "ko", "lav": "lv", "lit": "lt", "may": "ms", "msa": "ms", "nob": "nb", "nor": "no",
    "per": "fa", "fas": "fa", "pol": "pl", "por": "pt", "ron": "ro", "rum": "ro", "rus": "ru",
    "slk": "sk", "slo": "sk", "slv": "sl", "spa": "es", "srp": "sr", "swe": "sv", "tam": "ta",
    "tel": "te", "tha": "th", "tur": "tr", "ukr": "uk", "urd": "ur", "vie": "vi",
}  # fmt: skip
"""The shortest tags of languages, which RFC 5646 asks for, by ISO 639-2 code; others stay as they are."""


def bcp47(language: str) -> str:
    """Return the tag of a language: two letters where it has some, "" if it is not determined."""
    code = language.strip().lower()
    if code in {"", "und", "mis", "mul", "zxx"} or not code.replace("-", "").isalnum():
        return ""
    return _TWO_LETTERS.get(code, language.strip())


def in_brackets(languages: str) -> str:
    """Return the languages of a stream, which ffprobe parts by commas, in brackets behind a space, or ""."""
    names = dict.fromkeys(name for name in languages.split(",") if name not in {"", "und"})
    return f" ({', '.join(names)})" if names else ""
