"""What a server refuses, and how it says so; queue, cache and clients that leave."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from glesam_runtime.errors import BackendError, InputError
from glesam_serving.memory import free_memory
from glesam_serving.server.polygons import polygons_of
from glesam_serving.server.turns import Turns
from glesam_serving.settings import ServerOptions

CLICK = {"prompts": [{"points": [[40, 30]]}]}


def problem(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert set(found) == {"type", "title", "status", "detail"}
    assert found["status"] == status
    assert "Traceback" not in answer.text
    assert "\n" not in found["detail"]
    return found["detail"]


@pytest.fixture(scope="module")
def http(server):
    with server.http() as client:
        yield client


@pytest.fixture(scope="module")
def place(http: httpx.Client, make_picture, make_png) -> str:
    answer = http.post("/v1/images", content=make_png(make_picture(0)))
    return f"/v1/images/{answer.json()['image_id']}"


REFUSED: list[tuple[int, str, object]] = [
    (400, "not JSON", b"{"),
    (400, "not JSON", b"\xff\xfe"),
    (422, "Expected `object`", b"[" * 100_000),
    (422, "unknown field", b'{"unknown":' + b"[" * 100_000),
    (422, "unknown field", {"prompts": [{"points": [[1, 1]], "url": "file:///etc/passwd"}]}),
    (422, "list is empty", {"prompts": []}),
    (422, "neither points nor a box", {"prompts": [{}]}),
    (422, "prompt 1: point 200,3", {"prompts": [{"points": [[1, 1]]}, {"points": [[200, 3]]}]}),
    (422, "label 7", {"prompts": [{"points": [[1, 1]], "labels": [7]}]}),
    (422, "x1 must exceed x0", {"prompts": [{"box": [9, 9, 3, 3]}]}),
    (422, "2 labels do not match 1", {"prompts": [{"points": [[1, 1]], "labels": [1, 1]}]}),
    (404, "is not kept", {"prompts": [{"mask_from": "../../etc/passwd"}]}),
    (422, "is not base64", {"prompts": [{"mask_input": "*"}]}),
    (422, "has 3 bytes", {"prompts": [{"mask_input": "AAAA"}]}),
    (413, "limit of 256", {"prompts": [{"points": [[1, 1]]}] * 257}),
    (413, "limit of 256", {"prompts": [{"points": [[1, 1]] * 257}]}),
]


@pytest.mark.parametrize(("status", "says", "body"), REFUSED, ids=lambda each: str(each)[:30])
def test_prompts_that_cannot_be_used(
    http: httpx.Client, place: str, status: int, says: str, body: object
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert says in problem(http.post(f"{place}/segment", content=content), status)


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (422, b"", "image/png"),
        (422, b"\x89PNG\r\n\x1a\n" + b"0" * 40, "image/png"),
        (422, b"%!PS-Adobe-3.0 EPSF", "image/png"),
        (400, b"--b\r\nbroken", "multipart/form-data; boundary=b"),
        (400, b"", "multipart/form-data"),
        (
            422,
            b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n1\r\n--b--\r\n",
            "multipart/form-data; boundary=b",
        ),
    ],
)
def test_images_that_cannot_be_used(
    http: httpx.Client, status: int, content: bytes, kind: str
) -> None:
    answer = http.post("/v1/images", content=content, headers={"Content-Type": kind})
    detail = problem(answer, status)
    assert ("is empty" in detail) == (content == b"" and kind == "image/png")


def test_other_requests_that_cannot_be_used(http: httpx.Client, place: str) -> None:
    problem(http.get("/v1/images/..%2f..%2fetc%2fpasswd"), 404)
    problem(http.get("/../serving/settings.py"), 404)
    problem(http.put("/v1/images"), 405)
    problem(http.post("/v1/segment", json=CLICK), 415)
    problem(http.post("/v1/images?enhance=maybe", content=b"x"), 422)
    problem(http.get(f"{place}/embedding?dtype=int8"), 422)
    problem(http.get(f"{place}/embedding?name=x"), 404)
    problem(http.post(f"{place}/degrade", json={"level": 9}), 422)
    assert "known are" in problem(http.post(f"{place}/everything", json={"x": 1}), 422)
    problem(http.post(f"{place}/everything", json={"crop_n_layers": 9}), 422)
    problem(http.post(f"{place}/everything", json={"points_per_side": 10**9}), 422)
    problem(http.post(f"{place}/everything", json={"pred_iou_thresh": 2}), 422)
    two = {"prompts": [{"points": [[1, 1]]}] * 2}
    problem(http.post(f"{place}/segment", json=two, headers={"Accept": "image/png"}), 422)


def test_sizes_are_limited(start, make_picture, make_png) -> None:
    running = start(max_body_mib=1, max_megapixels=1)
    with running.http() as http:
        problem(http.post("/v1/images", content=bytes(2 << 20)), 413)

        def chunks():
            yield from [bytes(1 << 18)] * 8

        problem(http.post("/v1/images", content=chunks()), 413)
        large = make_png(np.zeros((1100, 1000, 3), np.uint8))
        assert "1000 x 1100" in problem(http.post("/v1/images", content=large), 413)
        assert http.post("/v1/images", content=make_png(make_picture(0))).status_code == 201


def test_a_key_is_required(start) -> None:
    running = start(api_key="right")
    with running.http() as http:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic right"}):
            problem(http.get("/v1/bundle", headers=headers), 401)
        problem(http.get("/metrics"), 401)
        assert http.get("/v1/bundle", headers={"Authorization": "Bearer right"}).is_success
        assert http.get("/health/live").is_success


def test_pages_of_other_sites_are_refused(start) -> None:
    running = start(cors=["https://friend.example"])
    with running.http() as http:
        problem(http.get("/v1/bundle", headers={"Host": "evil.example"}), 403)
        problem(http.get("/v1/bundle", headers={"Origin": "https://evil.example"}), 403)
        friend = http.get("/v1/bundle", headers={"Origin": "https://friend.example"})
        assert friend.headers["access-control-allow-origin"] == "https://friend.example"
        assert "default-src 'none'" in http.get("/docs").headers["content-security-policy"]


def test_an_open_address_needs_a_key() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(InputError, match="--api-key"):
            ServerOptions(host=host).check()
        ServerOptions(host=host, api_key="k").check()
        ServerOptions(host=host, insecure=True).check()
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        ServerOptions(host=host).check()


def slowed(seconds: float) -> Any:
    """Return a change to a model: each decoder call takes longer; the calls are recorded."""
    calls: list[int] = []

    def change(model: Any) -> None:
        decode, search = model.decode, model.search

        def slow(image: Any, batch: Any, multimask: bool) -> Any:
            calls.append(batch.size)
            time.sleep(seconds)
            return decode(image, batch, multimask)

        def slow_search(image: Any, parameters: Any, decoded: Any, *others: Any) -> Any:
            def watched(count: int) -> None:
                time.sleep(seconds / 4)
                decoded(count)

            return search(image, parameters, watched, *others)

        model.decode, model.search, model.joins = slow, slow_search, True

    change.calls = calls  # type: ignore[attr-defined]
    return change


def test_waiting_prompts_of_an_image_share_a_decoder_call(start, make_picture, make_png) -> None:
    change = slowed(0.3)
    running = start(change=change)
    with running.http() as http, ThreadPoolExecutor(7) as pool:
        name = http.post("/v1/images", content=make_png(make_picture(0))).json()["image_id"]
        prompts = [{"points": [[x, 30]]} for x in range(5)]
        prompts += [{"points": [[x, 30], [1, 1]]} for x in range(2)]
        answers = list(
            pool.map(
                lambda each: http.post(f"/v1/images/{name}/segment", json={"prompts": [each]}),
                prompts,
            )
        )
        assert all(answer.is_success for answer in answers)
    # The first goes alone; those that wait then go together, by their number of points.
    assert sum(change.calls) == 7
    assert len(change.calls) <= 4


def test_a_full_queue_and_late_answers(start, make_picture, make_png) -> None:
    change = slowed(0.5)
    running = start(change=change, queue=2, timeout=2)
    with running.http() as http, ThreadPoolExecutor(6) as pool:
        name = http.post("/v1/images", content=make_png(make_picture(0))).json()["image_id"]
        many = {"prompts": [{"points": [[1, 1]]}] * 64}
        jobs = [pool.submit(http.post, f"/v1/images/{name}/segment", json=many) for _ in range(6)]
        answers = [job.result() for job in jobs]
        full = [answer for answer in answers if answer.status_code == 429]
        assert len(full) == 4
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in full)
        late = [answer for answer in answers if answer not in full]
        assert all("2 s" in problem(answer, 504) for answer in late)
        assert http.post(f"/v1/images/{name}/segment", json=CLICK).is_success
    assert sum(change.calls) < 64, "the work of late answers went on"


def free(http: httpx.Client, name: str) -> None:
    """Click until there is a place, for 5 seconds at most."""
    until = time.monotonic() + 5
    while http.post(f"/v1/images/{name}/segment", json=CLICK).status_code == 429:
        assert time.monotonic() < until


def test_a_client_that_leaves_frees_its_place(start, make_picture, make_png) -> None:
    change = slowed(0.2)
    running = start(change=change, queue=1)
    with running.http() as http:
        name = http.post("/v1/images", content=make_png(make_picture(0))).json()["image_id"]
        many = {"prompts": [{"points": [[1, 1]]}] * 200}
        with pytest.raises(httpx.ReadTimeout):
            http.post(f"/v1/images/{name}/segment", json=many, timeout=0.3)
        free(http, name)
        assert sum(change.calls) < 200
        few = {"points_per_side": 2}
        # This search would take over ten seconds; the next one waits for its place.
        with http.stream("POST", f"/v1/images/{name}/everything", json={}) as answer:
            received = answer.iter_lines()  # the answer is closed when nobody holds this
            next(received)
            assert http.post(f"/v1/images/{name}/everything", json=few).status_code == 429
        until = time.monotonic() + 5
        while http.post(f"/v1/images/{name}/everything", json=few).status_code == 429:
            assert time.monotonic() < until


def test_one_failing_prompt_does_not_fail_those_beside_it(start, make_picture, make_png) -> None:
    def change(model: Any) -> None:
        decode = model.decode

        def broken(image: Any, batch: Any, multimask: bool) -> Any:
            time.sleep(0.1)
            if (batch.points == 13).any():
                raise BackendError("decoder: returned NaN")
            return decode(image, batch, multimask)

        model.decode, model.joins = broken, True

    running = start(change=change)
    with running.http() as http, ThreadPoolExecutor(4) as pool:
        name = http.post("/v1/images", content=make_png(make_picture(0))).json()["image_id"]
        answers = list(
            pool.map(
                lambda x: http.post(
                    f"/v1/images/{name}/segment", json={"prompts": [{"points": [[x, 30]]}]}
                ),
                [10, 11, 13, 14],
            )
        )
    assert [answer.status_code for answer in answers] == [200, 200, 500, 200]


def test_a_cache_of_one_image(start, make_picture, make_png) -> None:
    running = start(cache_bytes=1)
    with running.http() as http:
        names = [
            http.post("/v1/images", content=make_png(make_picture(seed))).json()["image_id"]
            for seed in (0, 1)
        ]
        assert "send it again" in problem(http.get(f"/v1/images/{names[0]}"), 404)
        assert http.post(f"/v1/images/{names[1]}/segment", json=CLICK).is_success
        assert "glesam_cache_images 1.0" in http.get("/metrics").text


def test_the_same_image_from_many_clients_is_encoded_once(start, make_picture, make_png) -> None:
    encoded = []

    def change(model: Any) -> None:
        encode = model.encode
        model.encode = lambda *given: (encoded.append(given[0]), encode(*given))[1]

    running = start(change=change)
    with running.http() as http, ThreadPoolExecutor(8) as pool:
        content = make_png(make_picture(5))
        answers = list(pool.map(lambda _: http.post("/v1/images", content=content), range(8)))
    assert len({answer.json()["image_id"] for answer in answers}) == 1
    assert len(encoded) == 1


def test_slow_senders_are_cut_off(start) -> None:
    running = start(receive_timeout=0.5)
    address = urlsplit(running.url)
    with socket.create_connection((address.hostname, address.port), timeout=8) as slow:
        slow.sendall(b"POST /v1/images HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\nx")
        answer = slow.recv(65536)
        assert b" 408 " in answer.splitlines()[0]
    with socket.create_connection((address.hostname, address.port), timeout=8) as broken:
        broken.sendall(b"NONSENSE\r\n\r\n")
        answer = broken.recv(65536)
        assert b" 400 " in answer.splitlines()[0]
        assert b"application/problem+json" in answer


def test_a_prompt_goes_before_the_next_encode() -> None:
    """Where an engine runs one call at a time."""
    turns, order = Turns(), []

    def run(name: str, urgent: bool) -> None:
        with turns.taken(urgent=urgent):
            order.append(name)
            time.sleep(0.1)

    threads = []
    for name, urgent in (("encode", False), ("next", False), ("third", False), ("click", True)):
        threads.append(threading.Thread(target=run, args=(name, urgent)))
        threads[-1].start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert order[:2] == ["encode", "click"]


@pytest.mark.parametrize("seed", range(6))
def test_polygons_of_noise_fill_to_it(seed: int) -> None:
    """Pixels that touch diagonally and holes; the oracle counts edges to the left of each pixel."""
    mask = np.random.default_rng(seed).random((9, 11)) < 0.15 * (seed + 1)
    filled = np.zeros(mask.shape, bool)
    for ring in polygons_of(mask):
        for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
            assert (x0 == x1) != (y0 == y1), "an edge that is not along pixels"
            if x0 == x1:
                filled[int(min(y0, y1)) : int(max(y0, y1)), int(x0) :] ^= True
    np.testing.assert_array_equal(filled, mask)


def test_the_memory_of_a_container_counts(tmp_path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  2048 kB\n")
    assert free_memory(tmp_path, tmp_path) == 2048 * 1024
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert free_memory(tmp_path, tmp_path) == 600000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(tmp_path, tmp_path) == 2048 * 1024
