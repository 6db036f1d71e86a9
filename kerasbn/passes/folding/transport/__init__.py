"""How affine maps pass through the operations that they commute with, at inference.

    backward   A f(x, y, ...)  =  f(A1 x, A2 y, ...)      A is given, the Ai are wanted
    forward    f(A1 x, A2 y, ...)  =  A f(x, y, ...)      the other way round

Each direction is a function of a call site that gives the maps wanted, or raises the `Refusal` that
says why there are none.
"""
