"""Twenty problems of CodeContests with a right and a wrong Python program each, written for the tests.

The programs are own work. No text of a problem is here: `row` is its place in the sample file, and
`digest` tells whether that row still is the one that the programs were written for. Each wrong program is a
small slip away from the right one and fails at least one of the row's tests. Problems that accept several
answers were left out, so comparing outputs by words is enough.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Solution:
    row: int
    """Index in `codecontests_test.jsonl`, from 0."""
    digest: str
    """First 16 hex digits of the SHA-256 of the problem's text in UTF-8."""
    slip: tuple[str, str]
    """What stands once in the right program, and what stands there in the wrong one."""
    right: str

    @property
    def wrong(self) -> str:
        assert self.right.count(self.slip[0]) == 1, self.row
        return self.right.replace(*self.slip)


SOLUTIONS: list[Solution] = [
    Solution(
        row=3,
        digest="44251578f988cf7e",
        slip=("ways *= 9 if place == 0 else 10", "ways *= 10"),
        right="""\
s = input().strip()
total = 0
for digit in "0123456789" if "X" in s else "0":
    t = s.replace("X", digit)
    if len(t) == 1:
        total += t in "0_"
        continue
    if t[0] == "0":
        continue
    for end in ("00", "25", "50", "75"):
        if any(have not in ("_", want) for have, want in zip(t[-2:], end)):
            continue
        if len(t) == 2 and end[0] == "0":
            continue
        ways = 1
        for place, char in enumerate(t[:-2]):
            if char == "_":
                ways *= 9 if place == 0 else 10
        total += ways
print(total)
""",
    ),
    Solution(
        row=22,
        digest="b47b1c5b40aed885",
        slip=("print(half[2 * int(input())])", "print(half[2 * int(input()) - 1])"),
        right="""\
MOD = 10**9 + 7
half = [1, 1, 1]
for n in range(3, 200001):
    half.append(half[-1] * n % MOD)
for _ in range(int(input())):
    print(half[2 * int(input())])
""",
    ),
    Solution(
        row=29,
        digest="eebb267b4cddfaeb",
        slip=(
            "found = [xor for xor in range(512) if best[xor] < 512]",
            "found = [xor for xor in range(500) if best[xor] < 512]",
        ),
        right="""\
input()
best = [0] + [512] * 511
waiting = [[0] for _ in range(512)]
for value in map(int, input().split()):
    for xor in waiting[value]:
        new = xor ^ value
        for later in range(value + 1, best[new] + 1):
            if later < 512:
                waiting[later].append(new)
        best[new] = min(best[new], value)
    waiting[value] = []
found = [xor for xor in range(512) if best[xor] < 512]
print(len(found))
print(*found)
""",
    ),
    Solution(
        row=42,
        digest="51dd8fc8c87a30cb",
        slip=("total += weight * bound", "total += weight * (bound - 1)"),
        right="""\
MOD = 998244353
n = int(input())
stack, total, ways, sign = [], 0, 1, 1
for bound in map(int, input().split()):
    weight = sign * ways
    total += weight * bound
    while stack and stack[-1][0] >= bound:
        value, other = stack.pop()
        total -= other * (value - bound)
        weight += other
    stack.append((bound, weight % MOD))
    total %= MOD
    ways = sign * total % MOD
    sign = -sign
print(ways)
""",
    ),
    Solution(
        row=56,
        digest="168b0f5dd31a4ff5",
        slip=(
            "< 2 * p * comb(n, 3):",
            "<= 2 * p * comb(n, 3):",
        ),
        right="""\
from math import comb

n, p = input().split()
n, p = int(n), round(float(p) * 10000)
k = 0
while 20000 * (comb(k, 3) + comb(k, 2) * (n - k)) + 10000 * k * comb(n - k, 2) < 2 * p * comb(n, 3):
    k += 1
print(k)
""",
    ),
    Solution(
        row=63,
        digest="96f9e11fedf6c1e9",
        slip=(
            'print("Alice" if run(a) % 2 or run(a[::-1]) % 2 else "Bob")',
            'print("Alice" if run(a) % 2 and run(a[::-1]) % 2 else "Bob")',
        ),
        right="""\
n = int(input())
a = list(map(int, input().split()))


def run(values):
    length = 1
    while length < n and values[length] > values[length - 1]:
        length += 1
    return length


print("Alice" if run(a) % 2 or run(a[::-1]) % 2 else "Bob")
""",
    ),
    Solution(
        row=67,
        digest="5f60ef2137cd4f35",
        slip=(
            "key=lambda pair: (max(pair), pair[0])):",
            "key=lambda pair: pair[::-1]):",
        ),
        right="""\
import sys

n, difficulty, *rest = map(int, sys.stdin.buffer.read().split())
climbed = 0
for skill, neatness in sorted(zip(rest[::2], rest[1::2]), key=lambda pair: (max(pair), pair[0])):
    if skill >= difficulty:
        climbed += 1
        difficulty = max(difficulty, neatness)
print(climbed)
""",
    ),
    Solution(
        row=77,
        digest="c17df5fb7d24c1f9",
        slip=("while have < k and have < n:", "while have <= k // 2 and have < n:"),
        right="""\
import sys

_, *numbers = map(int, sys.stdin.buffer.read().split())
for n, k in zip(numbers[::2], numbers[1::2]):
    hours, have = 0, 1
    while have < k and have < n:
        have, hours = 2 * have, hours + 1
    if have < n:
        hours += (n - have + k - 1) // k
    print(hours)
""",
    ),
    Solution(
        row=89,
        digest="0dd5656b3e8f7a7a",
        slip=('answer += all(tile[0] != "W" and tile[1] != "B" for tile in tiles)\n', ""),
        right="""\
MOD = 998244353
n = int(input())
tiles = [input().strip() for _ in range(n)]
text = "".join(tiles)
black, free = text.count("B"), text.count("?")
top, bottom = 1, 1
if not 0 <= n - black <= free:
    top = 0
for i in range(n - black if top else 0):
    top = top * (free - i) % MOD
    bottom = bottom * (i + 1) % MOD
answer = top * pow(bottom, -1, MOD)
mixed = 1
for tile in tiles:
    mixed = mixed * {"??": 2, "BB": 0, "WW": 0}.get(tile, 1) % MOD
answer -= mixed
answer += all(tile[0] != "W" and tile[1] != "B" for tile in tiles)
answer += all(tile[0] != "B" and tile[1] != "W" for tile in tiles)
print(answer % MOD)
""",
    ),
    Solution(
        row=92,
        digest="939367a9797d0617",
        slip=("p, q = min(p - shift, 7), min(q - shift, 7)", "p, q = min(p - shift, 5), min(q - shift, 5)"),
        right="""\
for _ in range(int(input())):
    (x, p), (y, q) = (map(int, input().split()) for _ in range(2))
    shift = min(p, q)
    p, q = min(p - shift, 7), min(q - shift, 7)
    x, y = x * 10**p, y * 10**q
    print("<" if x < y else ">" if x > y else "=")
""",
    ),
    Solution(
        row=94,
        digest="6421bb274efa7d50",
        slip=(
            "if k + sum(min(k, gap) for gap in gaps) >= need:",
            "if k + sum(min(k, gap) for gap in gaps) > need:",
        ),
        right="""\
for _ in range(int(input())):
    n, need = map(int, input().split())
    times = list(map(int, input().split()))
    gaps = [b - a for a, b in zip(times, times[1:])]
    low, high = 1, need
    while low < high:
        k = (low + high) // 2
        if k + sum(min(k, gap) for gap in gaps) >= need:
            high = k
        else:
            low = k + 1
    print(low)
""",
    ),
    Solution(
        row=100,
        digest="60052832a5a7dfd4",
        slip=("for red in range(k + 1):", "for red in range(k):"),
        right="""\
import sys

n, k, *ends = map(int, sys.stdin.buffer.read().split())
near = [[] for _ in range(n + 1)]
for a, b in zip(ends[::2], ends[1::2]):
    near[a].append(b)
    near[b].append(a)
order, parent = [1], [0] * (n + 1)
for node in order:
    for child in near[node]:
        if child != parent[node]:
            parent[child] = node
            order.append(child)
longest, chains = [0] * (n + 1), []
for node in reversed(order):
    below = sorted(longest[child] for child in near[node] if child != parent[node])
    longest[node] = 1 + (below.pop() if below else 0)
    chains += below
chains = sorted(chains + [longest[1]], reverse=True)
best, covered = None, 0
for red in range(k + 1):
    if 0 < red <= len(chains):
        covered += chains[red - 1]
    blue = min(n - covered, n // 2)
    score = (n - red - blue) * (red - blue)
    best = score if best is None else max(best, score)
print(best)
""",
    ),
    Solution(
        row=109,
        digest="52964af7e7f7764e",
        slip=(
            "print(sum(rest) + sum(x // y for x, y in zip(pairs[:k], pairs[k:])))",
            "print(sum(rest) + sum(x // y for x, y in zip(pairs[::2], pairs[1::2])))",
        ),
        right="""\
for _ in range(int(input())):
    n, k = map(int, input().split())
    a = sorted(map(int, input().split()))
    rest, pairs = a[: n - 2 * k], a[n - 2 * k :]
    print(sum(rest) + sum(x // y for x, y in zip(pairs[:k], pairs[k:])))
""",
    ),
    Solution(
        row=110,
        digest="69340ef0723300e8",
        slip=(
            'for new in (bits.rstrip("0")[::-1], "1" + bits[::-1]):',
            'for new in (bits.rstrip("0")[::-1], "1" + bits[::-1].lstrip("0")):',
        ),
        right="""\
start, goal = (f"{int(number):b}" for number in input().split())
seen, queue = {start}, [start]
for bits in queue:
    for new in (bits.rstrip("0")[::-1], "1" + bits[::-1]):
        if new not in seen and len(new) <= max(len(start), len(goal)) + 1:
            seen.add(new)
            queue.append(new)
print("YES" if goal in seen else "NO")
""",
    ),
    Solution(
        row=112,
        digest="c49b80b9e922f7d3",
        slip=(
            'print("YES" if s[:half] == s[half:] else "NO")',
            'print("YES" if s[:half] == s[-half:] else "NO")',
        ),
        right="""\
for _ in range(int(input())):
    s = input().strip()
    half = len(s) // 2
    print("YES" if s[:half] == s[half:] else "NO")
""",
    ),
    Solution(
        row=113,
        digest="2343dbdc920c9b84",
        slip=("print(root(n, 2) + root(n, 3) - root(n, 6))", "print(root(n, 2) + root(n, 3) - 1)"),
        right="""\
def root(n, power):
    r = round(n ** (1 / power)) + 1
    while r**power > n:
        r -= 1
    return r


for _ in range(int(input())):
    n = int(input())
    print(root(n, 2) + root(n, 3) - root(n, 6))
""",
    ),
    Solution(
        row=118,
        digest="43cb410f2f590310",
        slip=(
            'print("NO" if input().count("N") == 1 else "YES")',
            'print("NO" if input().count("N") % 2 == 1 else "YES")',
        ),
        right="""\
for _ in range(int(input())):
    print("NO" if input().count("N") == 1 else "YES")
""",
    ),
    Solution(
        row=123,
        digest="875789fb059b5ff3",
        slip=(
            "fits = a + b == c or (a == b and c % 2 == 0) or (b == c and a % 2 == 0)",
            "fits = a + b == c or (a == b and c % 2 == 0) or (b == c)",
        ),
        right="""\
for _ in range(int(input())):
    a, b, c = sorted(map(int, input().split()))
    fits = a + b == c or (a == b and c % 2 == 0) or (b == c and a % 2 == 0)
    print("YES" if fits else "NO")
""",
    ),
    Solution(
        row=125,
        digest="d0e937683b4f5c8d",
        slip=(
            "steps = copies + max(0, -(-over // (copies + 1)))",
            "steps = copies + max(0, over // (copies + 1))",
        ),
        right="""\
for _ in range(int(input())):
    n, k = map(int, input().split())
    a = sorted(map(int, input().split()), reverse=True)
    least, rest, best = a.pop(), sum(a), None
    for copies in range(n):
        over = rest + (copies + 1) * least - k
        steps = copies + max(0, -(-over // (copies + 1)))
        best = steps if best is None else min(best, steps)
        rest -= a[copies] if copies < n - 1 else 0
    print(best)
""",
    ),
    Solution(
        row=126,
        digest="7abca1da0ad89124",
        slip=("if 0 < k <= len(ones) - 2:", "if 0 < k < len(ones) - 2:"),
        right="""\
MOD = 998244353
n, k = map(int, input().split())
ones = [-1] + [i for i, char in enumerate(input().strip()) if char == "1"] + [n]
factorial = [1]
for i in range(1, n + 1):
    factorial.append(factorial[-1] * i % MOD)


def choose(size, taken):
    return factorial[size] * pow(factorial[taken] * factorial[size - taken], -1, MOD)


total = 1
if 0 < k <= len(ones) - 2:
    total = 0
    for i in range(1, len(ones) - k):
        total += choose(ones[i + k] - ones[i - 1] - 1, k)
        if i > 1:
            total -= choose(ones[i + k - 1] - ones[i - 1] - 1, k - 1)
print(total % MOD)
""",
    ),
]
