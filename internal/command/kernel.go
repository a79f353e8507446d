package command

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/egressip-operator/egressip-operator/pkg/agent"
)

// formerBackendFlag is the name that --backend had in version 0.1.0.
const formerBackendFlag = "iptables-backend"

func addBackendFlag(f *pflag.FlagSet, o *agent.KernelOptions) {
	f.Var(newChoice(&o.Backend, agent.Backends()...), "backend",
		"`backend` of our rules: nftables is a table of their own; iptables uses the backends of iptables that hold the node's other rules, "+
			"iptables-nft, iptables-legacy and iptables-both name them; auto is nftables where the kernel can, else iptables")
	f.Var((*formerBackend)(&o.Backend), formerBackendFlag, "former name of --backend: auto, nft, legacy or both")
	// It fails for a flag that does not exist.
	_ = f.MarkDeprecated(formerBackendFlag, "use --backend")
}

// addKernelFlags adds the flags that the agent and cleanup must agree on.
func addKernelFlags(f *pflag.FlagSet, o *agent.KernelOptions) {
	f.Uint16Var(&o.OverlayPort, "overlay-port", o.OverlayPort, "UDP `port` of the overlay, the same on all nodes")
	f.Var((*maskValue)(&o.MarkMask), "mark-mask", "`bits` of the packet mark that the operator uses")
	f.StringVar(&o.PinDir, "pin-dir", o.PinDir, "`directory` on a bpffs for the operator's maps")
}

// formerBackend is the value of formerBackendFlag.
type formerBackend string

func (b *formerBackend) String() string { return "" }

func (b *formerBackend) Set(s string) error {
	now, known := map[string]string{"auto": "auto", "nft": "iptables-nft", "legacy": "iptables-legacy", "both": "iptables-both"}[s]
	if !known {
		return fmt.Errorf("use one of: auto, nft, legacy, both; or --backend with one of: %s", strings.Join(agent.Backends(), ", "))
	}
	*b = formerBackend(now)
	return nil
}

func (*formerBackend) Type() string { return "string" }
