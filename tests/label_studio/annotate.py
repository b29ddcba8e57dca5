"""Annotate a picture with Label Studio's own client and code; runs in Label Studio's environment.

The arguments are Label Studio's address, a personal access token, the backend's address, the
picture, a JSON file with the regions of each click, and the folder for the results. Label Studio
sends the clicks to the backend, decodes the masks, keeps them as an annotation and exports it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import requests
from label_studio_sdk.client import LabelStudio
from label_studio_sdk.converter.brush import decode_rle

CONFIG = """
<View>
  <Image name="picture" value="$image"/>
  <BrushLabels name="mask" toName="picture"><Label value="coin"/></BrushLabels>
  <KeyPointLabels name="point" toName="picture" smart="true"><Label value="coin"/></KeyPointLabels>
  <RectangleLabels name="box" toName="picture" smart="true"><Label value="coin"/></RectangleLabels>
</View>
"""


def main() -> None:
    address, token, backend, picture, clicks, folder = sys.argv[1:]
    out = Path(folder)
    client = LabelStudio(base_url=address, api_key=token)
    http = requests.Session()
    access = http.post(f"{address}/api/token/refresh", json={"refresh": token}).json()["access"]
    http.headers["Authorization"] = f"Bearer {access}"

    project = client.projects.create(title="coins", label_config=CONFIG)
    with Path(picture).open("rb") as file:
        url = f"{address}/api/projects/{project.id}/import"
        http.post(url, files={"file": file}).raise_for_status()
    (task,) = client.tasks.list(project=project.id)
    elsewhere = client.tasks.create(project=project.id, data={"image": f"{backend}/elsewhere.png"})
    ml = client.ml.create(url=backend, project=project.id, title="glesam", is_interactive=True)
    connected = client.ml.get(ml.id)

    def click(number: int, regions: list[dict]) -> dict:
        body = {"task": number, "context": {"result": regions}}
        answer = http.post(f"{address}/api/ml/{ml.id}/interactive-annotating", json=body)
        answer.raise_for_status()
        return answer.json()

    made, scores = [], []
    contexts = json.loads(Path(clicks).read_text())
    for index, context in enumerate(contexts):
        (region,) = click(task.id, context)["data"]["result"]
        shape = (region["original_height"], region["original_width"], 4)
        np.save(out / f"decoded{index}.npy", decode_rle(region["value"]["rle"]).reshape(shape))
        made.append(region)
        scores.append(region["score"])
    refused = [
        click(task.id, [{**contexts[0][0], "type": "ellipselabels", "value": {}}]),
        click(elsewhere.id, contexts[0]),
        click(task.id, []),
    ]
    client.annotations.create(id=task.id, result=made)
    url = f"{address}/api/projects/{project.id}/export"
    export = http.get(url, params={"exportType": "BRUSH_TO_PNG"})
    export.raise_for_status()
    (out / "export.zip").write_bytes(export.content)
    print(
        json.dumps(
            {
                "state": connected.state,
                "model_version": connected.model_version,
                "scores": scores,
                "refused": refused,
            }
        )
    )


if __name__ == "__main__":
    main()
