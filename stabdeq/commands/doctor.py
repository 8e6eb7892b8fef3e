"""``stabdeq doctor``: what is installed, and what is missing for what."""

MARKS = {"ok": "ok", "missing": "MISSING", "optional": "-"}


def doctor() -> int:
    """Tell versions, devices, compiler and CPU features, hidden packages, and what is missing for what."""
    from stabdeq.installation import examine

    missing = []
    for found in examine():
        print(f"{MARKS[found.standing]:7}  {found.name:13}  {found.words}")
        missing += [found.name] if found.standing == "missing" else []
    print(f"\nTo be mended: {', '.join(missing)}." if missing else "\nAll that is needed is there.")
    return 2 if missing else 0
