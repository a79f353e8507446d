package command

import (
	"github.com/spf13/pflag"

	"github.com/egressip-operator/egressip-operator/pkg/agent"
)

func addBackendFlag(f *pflag.FlagSet, o *agent.KernelOptions) {
	f.Var(newChoice(&o.IPTablesBackend, agent.Backends()...), "iptables-backend",
		"iptables `backend` of our rules: auto, nft, legacy or both; auto uses those that hold the node's other rules")
}

// addKernelFlags adds the flags that the agent and cleanup must agree on.
func addKernelFlags(f *pflag.FlagSet, o *agent.KernelOptions) {
	f.Uint16Var(&o.OverlayPort, "overlay-port", o.OverlayPort, "UDP `port` of the overlay, the same on all nodes")
	f.Var((*maskValue)(&o.MarkMask), "mark-mask", "`bits` of the packet mark that the operator uses")
	f.StringVar(&o.PinDir, "pin-dir", o.PinDir, "`directory` on a bpffs for the operator's maps")
}
