"""A server process under load and under attack; `make test-serving` runs it."""

from __future__ import annotations

import itertools
import json
import random
import signal
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from pycocotools import mask as coco

from glesam_runtime import GleSamPredictor
from glesam_serving import Client

pytestmark = pytest.mark.serving

CLIENTS, IMAGES, REQUESTS, WARM = 32, 8, 2000, 200
HOSTILE = 200


def prompts(rng: random.Random) -> dict:
    """Return arguments of predict: points, a box, both, or a batch of boxes, of 96 x 72 pixels."""

    def box() -> list[int]:
        x, y = rng.randrange(60), rng.randrange(40)
        return [x, y, x + rng.randrange(8, 36), y + rng.randrange(8, 32)]

    count = rng.choice([1, 1, 2, 3])
    points = [[rng.randrange(96), rng.randrange(72)] for _ in range(count)]
    labels = [1, *(rng.randrange(2) for _ in range(count - 1))]
    multimask = rng.random() < 0.3
    kind = rng.randrange(4)
    if kind == 0:
        return {"box": box(), "multimask_output": multimask}
    if kind == 1:
        return {"box": [box(), box()], "multimask_output": multimask}
    given = {"point_coords": points, "point_labels": labels, "multimask_output": multimask}
    return given if kind == 2 else {**given, "box": box()}


def test_every_answer_is_the_predictor_s_and_memory_stays_flat(
    spawn, predictor: GleSamPredictor, make_picture, make_png
) -> None:
    """2,000 requests of 32 clients for 8 images: one in eight encodes, the others click."""
    pictures = [make_picture(seed) for seed in range(IMAGES)]
    files = [make_png(pixels) for pixels in pictures]
    drawn = [prompts(random.Random(seed)) for seed in range(64)]
    expected = []
    for pixels in pictures:
        predictor.set_image(pixels)
        expected.append([predictor.predict(**each) for each in drawn])
    running = spawn()
    numbers, lock = itertools.count(), threading.Lock()
    memory: dict[int, int] = {}
    wrong: list[str] = []

    def work(_: int) -> None:
        with Client(running.url) as client:
            at = -1
            while True:
                with lock:
                    number = next(numbers)
                if number >= REQUESTS:
                    return
                if number == WARM:
                    memory[WARM] = running.memory()
                rng = random.Random(number)
                if at < 0 or number % 8 == 0:
                    at = rng.randrange(IMAGES)
                    client.set_image(files[at])
                which = rng.randrange(len(drawn))
                found = client.predict(**drawn[which])
                for name, mine, want in zip(
                    ("masks", "scores", "logits"), found, expected[at][which], strict=True
                ):
                    if not np.array_equal(mine, want):
                        wrong.append(f"request {number}: {name} of {drawn[which]}")

    start = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(work, range(CLIENTS)))
    seconds = time.perf_counter() - start
    after = running.memory()
    print(
        f"{REQUESTS} requests of {CLIENTS} clients in {seconds:.0f} s; memory "
        f"{memory[WARM] >> 20} MiB after {WARM}, {after >> 20} MiB at the end "
        f"({after / memory[WARM] - 1:+.1%})"
    )
    assert not wrong, wrong[:5]
    assert after <= 1.05 * memory[WARM]


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000)))


def attacks(http: httpx.Client, place: str, good: bytes, address: tuple[str, int]) -> list:
    """Return hostile requests as functions; each returns its status, 0 for a closed connection."""
    rng = random.Random(0)

    def raw(content: bytes, wait: bool = True) -> int:
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(content)
            if not wait:
                return 0
            head = connection.recv(4096)
        assert b"Traceback" not in head
        return int(head.split()[1]) if head else 0

    def post(path: str, status: set[int], **given: object):
        def attack() -> tuple[int, set[int]]:
            answer = http.post(path, **given)
            assert "Traceback" not in answer.text
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == "application/problem+json", answer.text
            return answer.status_code, status

        return attack

    def bytes_of(content: bytes, status: set[int], wait: bool = True):
        return lambda: (raw(content, wait), status)

    found = []
    for index in range(30):
        found.append(post("/v1/images", {422}, content=good[: len(good) * index // 31]))
        found.append(post("/v1/images", {413, 422}, content=bomb(1 << (8 + index % 20), 1 << 20)))
        damaged = bytearray(good)
        for _ in range(20):
            damaged[rng.randrange(8, len(damaged))] = rng.randrange(256)
        found.append(post("/v1/images", {422, 413, 200, 201}, content=bytes(damaged)))
        number = rng.choice([-1, 1e300, 10**40, 97, -0.5, 5e-324])
        wrong = {"prompts": [{"points": [[number, 1e9]]}]}
        found.append(post(f"{place}/segment", {422}, content=json.dumps(wrong).encode()))
    for body in (
        b'{"prompts":[{"points":[[NaN,1]]}]}',
        b'{"prompts":"x"}',
        b'{"prompts":[{"box":[1,2,3]}]}',
        b'{"prompts":[{"points":[[1,2,3,4]]}]}',
        b'{"prompts":[{"points":[["a",2]]}]}',
        b'{"prompts":[{"points":[[1,1]]}],"threshold":"x"}',
        b'{"prompts":[{"points":[[1,1]],"mask_from":"http://169.254.169.254/"}]}',
        b"{" * 1000,
        b"\x00" * 1000,
        json.dumps({"prompts": [{"points": [[1, 1]]}] * 5000}).encode(),
        json.dumps({"prompts": [{"points": [[1, 1]] * 5000}]}).encode(),
    ):
        found.append(post(f"{place}/segment", {400, 404, 413, 422}, content=body))
    for path in (
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/v1/images/../../etc/passwd",
        "/page/../settings.py",
        "//etc/passwd",
        "/v1/images/%00/segment",
        "/" + "a" * 8000,
        "/\\..\\..\\windows\\win.ini",
    ):
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        found.append(bytes_of(request.encode(), {400, 404, 405}))
    head = b"POST /v1/images HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    for content, status in (
        (head + b"Content-Length: 9999999999\r\n\r\n", {413}),
        (head + b"Content-Length: -5\r\n\r\n", {400}),
        (head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", {400}),
        (head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400, 422}),
        (head + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", {400}),
        (b"GET / HTTP/9.9\r\n\r\n", {403, 505}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400}),
        (b"GET /health/live HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", {403}),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", {400}),
        (b"A" * 100_000, {400}),
    ):
        found += [bytes_of(content, status)] * 2
    for content in (head, head + b"Content-Length: 1000\r\n\r\nhalf", b"G", b""):
        found += [bytes_of(content, {0}, wait=False)] * 5
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    for body in (b"--b", b"--b--\r\n", b"\r\n" * 5000, b"--b\r\n" * 5000, b"--b\r\n\r\n\r\n--b--"):
        found.append(post("/v1/segment", {400, 422}, content=body, headers=form))
    part = b"--b\r\nContent-Disposition: form-data; name=x%d\r\n\r\n1\r\n"
    many = b"".join(part % index for index in range(500)) + b"--b--\r\n"
    found.append(post("/v1/segment", {422}, content=many, headers=form))
    while len(found) < HOSTILE:
        found.append(post(f"{place}/everything", {422}, json={"points_per_side": -len(found)}))
    rng.shuffle(found)
    return found


def test_hostile_requests_get_the_right_status(spawn, make_picture, make_png) -> None:
    running = spawn("--receive-timeout", "3")
    address = urlsplit(running.url)
    good = make_png(make_picture(0))
    with httpx.Client(base_url=running.url, timeout=60) as http:
        place = http.post("/v1/images", content=good).headers["Location"]
        # Half-open and slow connections stay open all the while.
        held = []
        for index in range(40):
            connection = socket.create_connection((address.hostname, address.port))
            connection.sendall(b"POST /v1/images HTTP/1.1\r\nHost: 127.0.0.1\r\n"[: index + 5])
            held.append(connection)
        hostile = attacks(http, place, good, (str(address.hostname), int(address.port or 0)))
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda attack: attack(), hostile))
        unexpected = [each for each in results if each[0] not in each[1]]
        assert len(results) >= HOSTILE
        assert not unexpected, unexpected
        assert http.post(f"{place}/segment", json={"prompts": [{"points": [[40, 30]]}]}).is_success
    until = time.monotonic() + 20
    for connection in held:  # each is closed by the server in the end
        connection.settimeout(max(0.1, until - time.monotonic()))
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass
        connection.close()
    running.process.send_signal(signal.SIGTERM)
    _, errors = running.process.communicate(timeout=30)
    print(f"{len(results)} hostile requests, 40 half-open connections; stderr: {errors!r}")
    assert running.process.returncode == 0
    assert "Traceback" not in errors
    assert "a bug" not in errors
    assert not [line for line in errors.splitlines() if line.startswith("error:")]


def test_kill_and_start_again(spawn, make_picture, make_png) -> None:
    first = spawn()
    port = urlsplit(first.url).port
    content = make_png(make_picture(0))
    client = Client(first.url)
    client.set_image(content)
    before = client.predict([[40, 30]], [1])
    first.process.kill()
    first.process.wait()
    spawn(port=port)
    after = client.predict([[40, 30]], [1])  # the client sends the image again
    for mine, want in zip(after, before, strict=True):
        np.testing.assert_array_equal(mine, want)
    client.close()


def test_sigterm_under_load_loses_no_accepted_request(spawn, make_picture, make_png) -> None:
    running = spawn()
    content = make_png(make_picture(0))
    with httpx.Client(base_url=running.url) as http:
        place = http.post("/v1/images", content=content).headers["Location"]
    outcomes: list[str] = []
    body = {"prompts": [{"points": [[40, 30]]}] * 8}

    def work(_: int) -> None:
        with httpx.Client(base_url=running.url, timeout=60) as http:
            while True:
                try:
                    answer = http.post(f"{place}/segment", json=body)
                except (httpx.ConnectError, httpx.ReadError, httpx.WriteError):
                    outcomes.append("refused")
                    return
                except httpx.RemoteProtocolError as error:
                    # A connection that was idle when the server closed it: no request was read.
                    outcomes.append(
                        "refused" if "without sending a response" in str(error) else str(error)
                    )
                    return
                masks = answer.json()["masks"] if answer.is_success else answer.text
                whole = len(masks) == 8 and coco.decode(masks[0]["rle"]).shape == (72, 96)
                outcomes.append("whole" if whole else str(masks))

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(work, index) for index in range(8)]
        time.sleep(3)
        before = len(outcomes)
        running.process.send_signal(signal.SIGTERM)
        for job in jobs:
            job.result(timeout=60)
    assert running.process.wait(30) == 0
    print(
        f"{outcomes.count('whole')} whole answers, {len(outcomes) - before} outcomes after SIGTERM"
    )
    assert set(outcomes) == {"whole", "refused"}
    assert outcomes.count("refused") == 8
    assert outcomes.count("whole") > before - 8
