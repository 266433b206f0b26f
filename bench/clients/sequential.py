"""The plain loop that neither peer improves on for recordings: disk.file.get, then the file, one after another."""

from __future__ import annotations

import httpx2

from bench.clients.measured import Job, Tally, main


def _recordings(job: Job, tally: Tally) -> None:
    base = f"{job['http']}/rest/{job['webhook']}"
    with httpx2.Client(headers={"Referer": job["http"], "Accept-Language": "en"}, timeout=60) as http:
        for number in job["ids"]:
            file = http.post(f"{base}/disk.file.get.json", json={"id": number}).raise_for_status().json()["result"]
            tally.bytes += len(http.get(file["DOWNLOAD_URL"]).raise_for_status().content)
            tally.add([number])


if __name__ == "__main__":
    main({"recordings": _recordings})
