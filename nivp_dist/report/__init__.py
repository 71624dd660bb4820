"""What a run shows: its progress, its status, tables of errors, and pictures."""


def draw_pictures(directory, problem=None):
    """``pictures.draw``, imported when it is called: matplotlib takes a while, and a run needs it at its end only."""
    from nivp_dist.report import pictures

    return pictures.draw(directory, problem)
