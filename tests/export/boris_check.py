"""What BORIS says of a project, as JSON: `python boris_check.py PROJECT FOLDER` opens it, checks it and exports its events.

Its package, boris-behav-obs, is under the GPL and needs Qt and libmpv, so it runs in a process of its own, where it is installed.
"""

import json
import sys
from pathlib import Path


def main(project: str, folder: str) -> None:
    """Print what the project has, and write the tables that BORIS exports, `0.tsv`, `1.tsv` …, into a folder."""
    from boris import config, export_observation, project_functions, version

    _, has_changed, opened, message = project_functions.open_project_json(project)
    observations = opened["observations"]
    ethogram = opened["behaviors_conf"]
    parameters = {
        "time": config.TIME_FULL_OBS,
        config.SELECTED_SUBJECTS: [subject["name"] for subject in opened["subjects_conf"].values()],
        config.SELECTED_BEHAVIORS: [behavior["code"] for behavior in ethogram.values()],
    }
    for number, (name, observation) in enumerate(observations.items()):
        table = str(Path(folder) / f"{number}.tsv")
        export_observation.export_tabular_events(opened, parameters, name, observation, ethogram, table, "tsv")
    found = {
        "version": version.__version__,
        "error": opened.get("error"),
        "has_changed": has_changed,
        "message": message,
        "integrity": project_functions.check_project_integrity(opened, "hh:mm:ss", project, media_file_available=True),
        "states": [
            project_functions.check_state_events_obs(name, ethogram, observation)
            for name, observation in observations.items()
        ],
    }
    print("FOUND " + json.dumps(found))  # BORIS prints too


if __name__ == "__main__":
    main(*sys.argv[1:])
