"""What a person writes to train with OpenAI's SDK: upload, create, follow, chat. Run by both majors of the SDK.

Takes its words as JSON on the command line, and prints what it saw as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import openai

asked: dict[str, Any] = json.loads(sys.argv[1])
client = openai.OpenAI(base_url=asked["url"], api_key=asked["key"])

file = client.files.create(file=Path(asked["rows"]), purpose="fine-tune")
file = client.files.wait_for_processing(file.id, poll_interval=0.2)
job = client.fine_tuning.jobs.create(
    model=asked["model"], training_file=file.id, suffix=asked["suffix"], seed=3, method=asked["method"]
)
statuses = [job.status]
until = time.monotonic() + asked["timeout_s"]
while job.status not in ("succeeded", "failed", "cancelled") and time.monotonic() < until:
    time.sleep(0.5)
    job = client.fine_tuning.jobs.retrieve(job.id)
    if job.status != statuses[-1]:
        statuses.append(job.status)
events = [  # the iterator asks for pages until there are no more
    {"type": each.type, "message": each.message, "data": each.data}
    for each in client.fine_tuning.jobs.list_events(job.id, limit=50)
]

answers = {}
for model in (asked["model"], job.fine_tuned_model):
    if model:
        said = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": asked["question"]}], temperature=0, max_tokens=40
        )
        answers[model] = said.choices[0].message.content

sys.stdout.write(
    json.dumps(
        {
            "sdk": openai.__version__,
            "file": file.to_dict(),
            "statuses": statuses,
            "job": job.to_dict(),
            "events": events[::-1],
            "checkpoints": [each.to_dict() for each in client.fine_tuning.jobs.checkpoints.list(job.id)],
            "results": [client.files.content(each).text for each in job.result_files],
            "answers": answers,
            "listed": job.id in [each.id for each in client.fine_tuning.jobs.list()],
            "model": client.models.retrieve(job.fine_tuned_model).to_dict() if job.fine_tuned_model else None,
        }
    )
)
