"""What `bigcast doctor` finds at real nodes that really have it. (Few descriptors: limits_test.py.)"""

import pathlib
import sys

import harness
from faults import CHUNK, PATIENT, FaultTest, payload
from harness import MIB, eventually

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/lib"))
import cgroup


class Doctor(FaultTest):
    def findings(self, node):
        """What it says of a node, by the check that found it."""
        done = self.bigcast(node, "--json", "doctor")
        return {each["check"]: each for each in self.json(done, code=done.returncode)}

    def test_a_relay_can_not_reach_a_home_that_its_reader_needs(self):
        home, relay = self.home(*PATIENT), self.relay(*PATIENT, grace="60s")
        self.put(home, "t/x", payload(8 * MIB))
        get = self.get(home, "t/x", through=relay)
        get.read(CHUNK)  # and then waits, with its session
        self.assertNotIn("peer", self.findings(relay))
        home.kill()
        eventually(lambda: "peer" in self.findings(relay), "a peer that is out of reach")
        found = self.findings(relay)["peer"]
        self.assertTrue(found["serious"])
        self.assertIn(f"it can't reach node {home.listen}: UNAVAILABLE: ", found["problem"])
        self.assertIn("advertise", found["advice"])

    def test_a_control_group_is_smaller_than_the_budget(self):
        enter = self.within(cgroup.MemoryCgroup(256 * MIB))
        self.assertNotIn("memory", self.findings(self.node("--memory", "64m", within=enter)))
        found = self.findings(self.node("--memory", "224m", within=enter))["memory"]
        self.assertTrue(found["serious"])
        self.assertIn("288.0 MiB", found["problem"])  # with what it uses beside its budget
        self.assertIn("killed above 256.0 MiB", found["problem"])


if __name__ == "__main__":
    harness.main()
