package main

// event is what an event means.
type event struct {
	// kind is Normal, Warning or both; on are the kinds of objects that have it.
	kind, on      string
	means, remedy string
}

// events are those of the controller by their reasons. The reasons of conditions that are those of
// events, too, are not among them.
func events() map[string]event {
	const normal, warning = "Normal", "Warning"
	const (
		group  = "NetNamespace or EgressIP"
		host   = "HostSubnet"
		both   = group + ", HostSubnet"
		none   = "nothing"
		reason = "the message says what is wrong, and names the other objects; `kubectl egressip explain`"
	)
	return map[string]event{
		"EgressIPAssigned":   {normal, both, "An egress IP has a host.", none},
		"EgressIPMoved":      {normal, both, "An egress IP has another host than before; or traffic leaves with another egress IP of the list, because its host can be used again or that of the former cannot.", "if it happens again and again, see [A host is offline](../troubleshooting.md#a-host-is-offline)"},
		"EgressIPUnassigned": {normal + " or " + warning, both, "An egress IP has no host any more: it is no longer requested (Normal), its claim is released, or no host has it (Warning).", "of a Warning, the message says what to do; `kubectl egressip explain`"},
		"EgressIPInUse":      {normal, group, "Traffic leaves with an egress IP whose assignment did not change: its host is online again, or it is its turn in the list.", none},
		"EgressIPOutOfUse":   {normal + " or " + warning, group, "Traffic does not leave with an egress IP any more whose assignment did not change: an earlier one of the list does it (Normal), or its host is offline, or it is in a conflict or invalid (Warning).", reason},
		"EgressIPConflict":   {warning, both, "Two objects request or claim the same address, or two egress IPs of a namespace are on one host. None of the claims or requests counts.", reason},
		"EgressIPInvalid":    {warning, both, "An address, or another value, cannot be used.", reason},
		"NoEligibleHost":     {warning, group, "Automatic hosts have a range that contains the address, and none of them can take it.", "add a host, or capacity: the message says what each lacks"},
		"NamespaceDropped":   {warning, group, "Of a family, no egress IP can be used: traffic to the outside is dropped.", "[A namespace's traffic does not leave](../troubleshooting.md#a-namespaces-traffic-does-not-leave)"},
		"NamespaceRestored":  {normal, group, "Traffic leaves again.", none},
		"RenumberingRefused": {warning, "NetNamespace", "Annotation `pod.network.openshift.io/multitenant.change-network` asked for another netid. The controller removed it.", "do not use `oc adm pod-network`"},
		"HostOffline":        {warning, host, "The host takes no egress traffic.", "[A host is offline](../troubleshooting.md#a-host-is-offline)"},
		"HostOnline":         {normal, host, "The host takes egress traffic again.", none},
		"Evacuating":         {normal, host, "The host's evacuation begins or ends, as annotation `egressip.network.openshift.io/evacuate` of its Node says.", none},
		"AddressInUse":       {warning, both, "Another machine on the segment answers for an egress IP; the message has its MAC address.", "[Another machine has an egress IP](../troubleshooting.md#another-machine-has-an-egress-ip)"},
		"SettingsKept":       {warning, "NetNamespace, HostSubnet", "An object came from a backup, another cluster or an earlier version. It was kept, and bound to the Namespace or Node that exists, or waits for one.", "[After a restore](../troubleshooting.md#after-a-restore-or-when-a-node-came-back)"},
		"SettingsDeleted":    {normal, "NetNamespace, HostSubnet", "The Namespace or Node is gone, and so is this object. The message has all that users had written.", "create the object again from the message, if that was a mistake"},
		"NodeAddressRefused": {warning, "Node or HostSubnet", "A Node's address is an egress IP, or that of another host; or it has changed its family while the host still has the former one.", "[After a restore](../troubleshooting.md#after-a-restore-or-when-a-node-came-back)"},
		"OtherInstall":       {warning, host, "Another install of the operator works in this cluster; this one does nothing.", "[The controller does nothing](../troubleshooting.md#the-controller-does-nothing)"},
		"ClaimsNotFenced":    {warning, host, "The API server refuses the mark by which one controller at a time writes claims. The host gets no egress IPs.", "[The controller does nothing](../troubleshooting.md#the-controller-does-nothing)"},
		"NotGiven":           {warning, "EgressIPRequest", "The request has no address; the message says why.", "the [reasons of requests](conditions.md#given-and-ready)"},
		"BadPool":            {warning, "EgressIPPool", "The pool cannot be used, and gives nothing.", "correct the pool: the message names the field"},
		"BadAnnotation":      {warning, "EgressIPRequest", "Annotations of the request cannot be used as they are; it is served all the same.", "correct the annotations: the message names them"},
	}
}
