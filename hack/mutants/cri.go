package main

const cri = "./pkg/cri"

// criMutants are mistakes about the container runtime's answers: pods that are none,
// pods that are forgotten, and news that comes late.
func criMutants() []mutant {
	return []mutant{
		{
			name: "node-network-is-a-pods", pkg: cri, test: "TestPodsAreWhatHasAnAddress", plain: true,
			edits: []edit{{file: "source.go", old: "GetNetwork() == runtimev1.NamespaceMode_NODE", new: "GetNetwork() == runtimev1.NamespaceMode_TARGET"}},
		},
		{
			name: "ended-is-a-pod", pkg: cri, test: "TestPodsAreWhatHasAnAddress", plain: true,
			edits: []edit{
				{file: "source.go", old: "item.GetState() != runtimev1.PodSandboxState_SANDBOX_READY || id == \"\"", new: "id == \"\""},
				{file: "source.go", old: "status == nil || status.GetState() != runtimev1.PodSandboxState_SANDBOX_READY", new: "status == nil"},
			},
		},
		{
			name: "late-address-not-asked", pkg: cri, test: "TestPodsAreWhatHasAnAddress", plain: true,
			edits: []edit{{file: "source.go", old: "known && (len(pod.Addresses) > 0 || pod.UID == \"\")", new: "known"}},
		},
		{
			name: "failed-answer-forgets", pkg: cri, test: "TestRuntimeIsRestarted", plain: true,
			edits: []edit{{
				file: "source.go", old: "return fmt.Errorf(\"list the runtime's pod sandboxes: %w\", err)",
				new: "s.sandboxes.Store(&map[string]Pod{})\n\t\treturn fmt.Errorf(\"list the runtime's pod sandboxes: %w\", err)",
			}},
		},
		{
			name: "asks-without-end", pkg: cri, test: "TestRuntimeIsStuck", plain: true,
			edits: []edit{{file: "source.go", old: "context.WithTimeout(ctx, pollTimeout)", new: "context.WithCancel(ctx)"}},
		},
		{
			name: "one-look-for-a-link", pkg: cri, test: "TestNewPodIsToldWhenItsLinkIsThere", plain: true,
			edits: []edit{{file: "source.go", old: "linkAt = s.config.Clock.Now()", new: "_ = linkAt"}},
		},
		{
			name: "fast-for-three-seconds", pkg: cri, test: "TestNewPodIsFoundSoonAfterItIsReady", plain: true,
			edits: []edit{{
				file: "source.go", old: "return max(fastPoll, duty, aged)",
				new: "if sinceLink > 3*time.Second {\n\t\treturn slowPoll\n\t}\n\treturn max(fastPoll, duty, aged)",
			}},
		},
		{
			name: "slow-answer-delays-without-limit", pkg: cri, test: "TestNewPodIsFoundSoonAfterItIsReady", plain: true,
			edits: []edit{{file: "source.go", old: "maxDutyPause = 500 * time.Millisecond", new: "maxDutyPause = time.Hour"}},
		},
		{
			name: "polls-never-slow", pkg: cri, test: "TestNewPodIsFoundSoonAfterItIsReady", plain: true,
			edits: []edit{{file: "source.go", old: "max(fastPoll, duty, aged)", new: "max(fastPoll, min(duty, aged))"}},
		},
	}
}
