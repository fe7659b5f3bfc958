"""Says numbers of bytes as people do, with a package that the image brings."""

import humanize


def make(context):
    """Called once; what it returns is called for each call."""

    def answer(prompt, call):
        return humanize.naturalsize(int(prompt), binary=True)

    return answer
