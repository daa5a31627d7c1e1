"""Worlds in which a change has no effect, or a known one.

Each function returns pairs of events and stalls, one for each second.
"""

import math

EVENTS = 10_000


def poisson(random, mean):
    """A Poisson number; above 500, a rounded normal one."""
    if mean > 500:
        return max(0, round(random.gauss(mean, math.sqrt(mean))))
    count = 0
    while mean > 30:
        # The sum of two Poisson numbers is one.
        count += poisson(random, 25.0)
        mean -= 25.0
    limit, product = math.exp(-mean), random.random()
    while product > limit:
        product *= random.random()
        count += 1
    return count


def binomial(random, tries, chance):
    """How many of `tries` succeed."""
    return sum(random.random() < chance for _ in range(tries))


def plain(random, seconds, rate=2.0):
    return [(EVENTS, poisson(random, rate)) for _ in range(seconds)]


def bursts(random, seconds):
    """Bursts of 5 to 50 stalls, one in five seconds."""
    return [
        (EVENTS, sum(random.randint(5, 50) for _ in range(poisson(random, 0.2))))
        for _ in range(seconds)
    ]


def wave(random, seconds, memory, sigma):
    """An AR(1) process with standard deviation `sigma`."""
    value, values = random.gauss(0, sigma), []
    for _ in range(seconds):
        values.append(value)
        value = memory * value + random.gauss(0, sigma * math.sqrt(1 - memory * memory))
    return values


def correlated(random, seconds, sigma=0.5, rate=2.0):
    """Rates with a correlation of 0.9 from one second to the next."""
    return [
        (EVENTS, poisson(random, rate * math.exp(value - sigma * sigma / 2)))
        for value in wave(random, seconds, 0.9, sigma)
    ]


def every_ten(random, seconds):
    """A burst of twenty stalls each ten seconds."""
    phase = random.randrange(10)
    return [
        (EVENTS, poisson(random, 20.2 if second % 10 == phase else 0.2))
        for second in range(seconds)
    ]


def few(random, seconds):
    """None to three stalls in two minutes."""
    return plain(random, seconds, 1.5 / 120)


def many(random, seconds):
    return plain(random, seconds, 200.0)


def outlier(random, seconds):
    """In half of the recordings, one second with two hundred stalls."""
    found = plain(random, seconds, 1.0)
    if random.random() < 0.5:
        at = random.randrange(seconds)
        found[at] = (EVENTS, found[at][1] + 200)
    return found


def heavy(random, seconds):
    """Clusters with sizes of a Pareto distribution of index 1.2."""
    return [
        (EVENTS, sum(min(math.ceil(random.paretovariate(1.2)) - 1, 5000) or 1
                     for _ in range(poisson(random, 0.5))))
        for _ in range(seconds)
    ]


def drift(random, seconds):
    """The load doubles; stalls grow with its square."""
    loads = [1 + second / max(seconds - 1, 1) for second in range(seconds)]
    return [(poisson(random, EVENTS * load), poisson(random, 2 * load * load)) for load in loads]


def load_wave(random, seconds):
    """The load is correlated by 0.9; stalls grow with its third power."""
    loads = [math.exp(value) for value in wave(random, seconds, 0.9, 0.3)]
    return [(poisson(random, EVENTS * load), poisson(random, 2 * load**3)) for load in loads]


# Worlds of two recordings of the same length.
RECORDINGS = {
    "Poisson, 2 a second": plain,
    "bursts of 5 to 50": bursts,
    "AR(1) 0.9, sigma 0.5": correlated,
    "AR(1) 0.9, sigma 1": lambda random, seconds: correlated(random, seconds, 1.0),
    "AR(1) 0.9, sigma 0.5, 20 a second": lambda r, s: correlated(r, s, 0.5, 20.0),
    "a burst each 10 s": every_ten,
    "0 to 3 in all": few,
    "200 a second": many,
    "one outlier second": outlier,
    "Pareto 1.2 clusters": heavy,
    "load doubles, stalls ~ load^2": drift,
    "load AR(1), stalls ~ load^3": load_wave,
}


def windows(random, schedule, effect, world, length=10.0, settle=2.0, rate=2.0):
    """The windows of an experiment: [changed, middle, seconds, events, stalls].

    `world` gives a factor and extra stalls for a window by its number, its start, and its length.
    """
    # It starts at any time of a minute.
    found, now, was = [], 60.0 * random.random(), False
    for number, (changed, pause) in enumerate(schedule):
        now += pause + (settle if changed != was else 0.0)
        was = changed
        load, factor, extra = world(random, number, len(schedule), now, length)
        mean = rate * length * factor * (effect if changed else 1.0) + extra
        found.append([changed, now + length / 2, length,
                      poisson(random, EVENTS * length * load), poisson(random, mean)])
        now += length
    return found


def lognormal(sigma):
    def world(random, _number, _of, _start, _length):
        return 1.0, math.exp(random.gauss(0, sigma) - sigma * sigma / 2), 0.0
    return world


def same(_random, _number, _of, _start, _length):
    return 1.0, 1.0, 0.0


def u_shape(_random, number, of, _start, _length):
    """The load is twice as high at both ends as in the middle; stalls grow with its square."""
    load = 1.0 + (2.0 * number / max(of - 1, 1) - 1.0) ** 2
    return load, load * load, 0.0


def first_bad(_random, number, _of, _start, _length):
    return 1.0, 3.0 if number == 0 else 1.0, 0.0


def growing(_random, number, of, _start, _length):
    """The load grows threefold; stalls grow with its square."""
    load = 1.0 + 2.0 * number / max(of - 1, 1)
    return load, load * load, 0.0


def job(_random, _number, _of, start, length):
    """Once a minute, two seconds with twenty stalls each."""
    hit = sum(max(0.0, min(start + length, at + 2.0) - max(start, at))
              for minute in range(int(start // 60), int((start + length) // 60) + 1)
              for at in [minute * 60.0 + 30.0])
    return 1.0, 1.0, 20.0 * hit


# Worlds of an experiment.
WINDOWS = {
    "windows differ by nothing": same,
    "lognormal, sigma 0.3": lognormal(0.3),
    "lognormal, sigma 0.5": lognormal(0.5),
    "lognormal, sigma 1": lognormal(1.0),
    "U-shaped load": u_shape,
    "load grows threefold": growing,
    "first window three times as bad": first_bad,
    "a job once a minute": job,
}
