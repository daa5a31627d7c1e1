#!/usr/bin/env python3
"""Simulates how often verdicts are wrong, and how often an effect is found.

    simulate.py --latency-user PROGRAM --judge PROGRAM [--pairs N] [--short]

Writes recordings of worlds without an effect with an encoder of its own, lets `latency-user compare`
judge them, and judges the windows of simulated experiments with `judge-windows`. Prints a table in
Markdown. Exits with 1 if a figure misses its bound: in full, false verdicts of at most 7 %; with
--short, bounds that a true rate of 5 % exceeds in fewer than one of 1,000 runs.
"""

import argparse
import json
import math
import random as randomness
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import encoder
import worlds

FALSE = 0.07


def exceeds(wrong, tries, short):
    """Whether so many false verdicts are too many."""
    if not short:
        return wrong > FALSE * tries
    # The chance of at least so many at a true rate of 5 %.
    tail = 1.0 - sum(math.comb(tries, k) * 0.05**k * 0.95 ** (tries - k) for k in range(wrong))
    return tail < 0.001


def compare(program, arguments):
    output = subprocess.run([program, "compare", "--format", "json", *map(str, arguments)],
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    if output.returncode not in (0, 4):
        raise SystemExit(f"compare {arguments}: status {output.returncode}")
    return json.loads(output.stdout)


class Table:
    """Rows, and whether all bounds were kept."""

    def __init__(self, short):
        self.short, self.missed, self.checks = short, [], 0

    def title(self, text, *columns):
        print(f"\n## {text}\n")
        print("| " + " | ".join(columns) + " |")
        print("|" + "---|" * len(columns), flush=True)

    def row(self, name, tries, verdicts, effect, intervals, bounded=True):
        wrong = sum(verdict in ("improved", "worse") for verdict in verdicts)
        inside = [low <= effect <= (high or math.inf) for low, high in intervals if low is not None]
        covered = f"{100 * sum(inside) / len(inside):.1f} %" if inside else "-"
        if effect == 1.0:
            self.checks += bounded
            if bounded and exceeds(wrong, tries, self.short):
                self.missed.append(f"{name}: {wrong} false verdicts of {tries}")
        print(f"| {name} | {tries} | {wrong} | {100 * wrong / tries:.1f} % | {covered} |", flush=True)
        return wrong


def pairs_of_recordings(args, table):
    lengths = [60] if args.short else [30, 60, 120, 300]
    for length in lengths:
        table.title(f"Two recordings of {length} s, no effect", *COLUMNS)
        for name, world in worlds.RECORDINGS.items():
            recordings(args, table, name, world, (length, length), 1.0)
    if not args.short:
        table.title("Recordings of 10 s and 300 s, no effect", *COLUMNS)
        for name, world in worlds.RECORDINGS.items():
            recordings(args, table, name, world, (10, 300), 1.0)
        table.title("Two recordings of 120 s, the stalls of the second thinned to 0.4",
                    "world", "pairs", "shown", "share", "intervals that cover")
        for name, world in worlds.RECORDINGS.items():
            recordings(args, table, name, world, (120, 120), 0.4)


COLUMNS = ("world", "pairs", "false", "share", "intervals that cover")


def recordings(args, table, name, world, lengths, effect):
    random = randomness.Random(f"{name} {lengths} {effect}")
    with tempfile.TemporaryDirectory() as directory:
        def one(number):
            files = [Path(directory, f"{number}-{side}.hlog") for side in range(2)]
            found = compare(args.latency_user, files)
            for file in files:
                file.unlink()
            return found

        with ThreadPoolExecutor(args.threads) as pool:
            waiting = []
            for number in range(args.pairs):
                for side, length in enumerate(lengths):
                    seconds = world(random, length)
                    if side and effect != 1.0:
                        seconds = [(n, worlds.binomial(random, k, effect)) for n, k in seconds]
                    encoder.recording(Path(directory, f"{number}-{side}.hlog"), seconds)
                waiting.append(pool.submit(one, number))
            results = [each.result() for each in waiting]
    intervals = [(each.get("low"), each.get("high")) for each in results]
    table.row(name, len(results), [each["verdict"] for each in results], effect, intervals)


def several_a_side(args, table):
    table.title("Six recordings of 30 s a side, no effect", *COLUMNS)
    for sigma in (0.3, 0.5, 1.0):
        name = f"recordings differ, sigma {sigma}"
        units(args, table, name, sigma, 0.0, [])
    name = "hosts differ, sigma 1.5, and each by 0.3 from one to the other"
    units(args, table, name, 0.3, 1.5, ["--unit", "host"])


def units(args, table, name, sigma, between, options):
    random, results = randomness.Random(name), []
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(args.pairs):
            sides = {"before": [], "after": []}
            hosts = [math.exp(random.gauss(0, between)) for _ in range(6)]
            for start, (side, files) in enumerate(sides.items()):
                for host in range(6):
                    rate = 2.0 * hosts[host] * math.exp(random.gauss(0, sigma))
                    file = Path(directory, f"{side}-{host}.hlog")
                    # One interval for ten seconds: the recording is the unit.
                    seconds = [(n * 10, worlds.poisson(random, rate * 10))
                               for n, _ in worlds.plain(random, 3, 0.0)]
                    moment = 40.0 * (2 * host + (start + host) % 2)
                    encoder.recording(file, seconds, f"h{host}", moment, 10.0)
                    files.append(file)
            arguments = [*options, "--before", *sides["before"], "--after", *sides["after"]]
            results.append(compare(args.latency_user, arguments))
    intervals = [(each.get("low"), each.get("high")) for each in results]
    table.row(name, len(results), [each["verdict"] for each in results], 1.0, intervals)


def experiments(args, table):
    pairs = 11
    table.title(f"Experiments of up to {pairs} pairs of 10 s windows, no effect", *COLUMNS)
    for name, world in worlds.WINDOWS.items():
        judged = experiment(args, name, world, pairs, 1.0)
        verdicts = [each["verdict"] for each in judged]
        table.row(name, len(judged), verdicts, 1.0, [(e["low"], e["high"]) for e in judged])
    if args.short:
        return
    table.title("Experiments with an effect", "world, effect", "tries", "shown", "share",
                "intervals that cover", "windows on average", "permutation test, all windows")
    for sigma, effect in [(0.5, 0.1), (0.5, 0.5), (0.3, 0.5), (1.0, 0.1), (0.0, 0.5)]:
        name = f"lognormal, sigma {sigma}, effect {effect}"
        world = worlds.lognormal(sigma)
        for count in (8, pairs):
            simulated = []
            judged = experiment(args, name, world, count, effect, simulated)
            shown = sum(each["verdict"] == "improved" for each in judged)
            covered = sum(e["low"] <= effect <= (e["high"] or math.inf) for e in judged)
            used = statistics.mean(each["windows"] for each in judged)
            permuted = sum(permutation(randomness.Random(at), each) < 0.05
                           for at, each in enumerate(simulated))
            share = [100 * n / len(judged) for n in (shown, covered, permuted)]
            print(f"| {name}, {count} pairs | {len(judged)} | {shown} | {share[0]:.1f} % "
                  f"| {share[1]:.1f} % | {used:.1f} | {share[2]:.1f} % |", flush=True)
            if effect == 0.1 and sigma == 0.5 and count == 8:
                table.checks += 1
                if share[0] < 95:
                    table.missed.append(f"{name}: found in {share[0]:.1f} %")
            table.checks += 1
            if share[2] - share[0] > 10:
                table.missed.append(f"{name}: {share[2] - share[0]:.1f} points below permutation")


def experiment(args, name, world, pairs, effect, simulated=None):
    random = randomness.Random(f"{name} {effect} {pairs}")
    schedules = subprocess.run([args.judge, "schedule", str(args.experiments), str(pairs), "10"],
                               capture_output=True, text=True, check=True).stdout.splitlines()
    lines = []
    for schedule in schedules:
        found = worlds.windows(random, json.loads(schedule), effect, world)
        lines.append(json.dumps(found))
        if simulated is not None:
            simulated.append(found)
    output = subprocess.run([args.judge, "judge"], input="\n".join(lines), capture_output=True,
                            text=True, check=True)
    return [json.loads(line) for line in output.stdout.splitlines()]


def permutation(random, windows, rounds=400):
    """The p-value of the difference of mean logarithms, by exchanging the windows of pairs."""
    logs = [math.log((stalls + 0.5) / events) for _, _, _, events, stalls in windows]
    differences = []
    for at in range(0, len(windows), 2):
        sign = 1 if windows[at][0] else -1
        differences.append(sign * (logs[at] - logs[at + 1]))
    seen = abs(sum(differences))
    beyond = sum(
        abs(sum(d if random.random() < 0.5 else -d for d in differences)) >= seen - 1e-12
        for _ in range(rounds))
    return (beyond + 1) / (rounds + 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency-user", required=True)
    parser.add_argument("--judge", required=True)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()
    table = Table(args.short)
    experiments(args, table)
    pairs_of_recordings(args, table)
    several_a_side(args, table)
    for missed in table.missed:
        print(f"missed: {missed}", file=sys.stderr)
    passed = table.checks - len(table.missed)
    print(f"{passed} passed, {len(table.missed)} failed, 0 skipped", file=sys.stderr)
    sys.exit(1 if table.missed else 0)


if __name__ == "__main__":
    main()
