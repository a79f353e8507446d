package egress

// Bond is what an object says about the owner that it lives as long as: a
// NetNamespace about its Namespace, a HostSubnet about its Node.
type Bond struct {
	// UID is the object's own UID; BoundUID is the one that was written when this
	// cluster's controller bound it, "" for never.
	UID, BoundUID string
	// MarkedUID is the UID of the owner that is written on the object; "" for none.
	MarkedUID string
	// OwnerUID is the UID of the owner of that name; "" if there is none.
	OwnerUID string
}

// Binding is what must happen to an object because of its owner.
type Binding int

// The bindings.
const (
	// BindingSettled: the object is bound to its owner.
	BindingSettled Binding = iota
	// BindingLeave: there is no owner, and the object never had one. It is an
	// administrator's.
	BindingLeave
	// BindingDoubtful: the object names an owner that does not exist, and was not
	// bound by this cluster's controller. It came from a backup or from another
	// cluster, and its owner may follow. It is kept, with a warning.
	BindingDoubtful
	// BindingBind: the object must be bound to its owner.
	BindingBind
	// BindingAdopt is BindingBind for an object that came from a backup or from
	// another cluster: the administrator must be told.
	BindingAdopt
	// BindingReplaced: the object was bound, and its owner is now another one of the
	// same name.
	BindingReplaced
	// BindingOrphaned: the object was bound, and its owner is gone.
	BindingOrphaned
)

// Binding decides about an object. Only one that carries its own UID was bound here: a
// copy has another UID, whatever else was copied with it.
func (b Bond) Binding() Binding {
	bound := b.BoundUID != "" && b.BoundUID == b.UID
	switch {
	case b.OwnerUID == "" && bound:
		return BindingOrphaned
	case b.OwnerUID == "" && b.MarkedUID != "":
		return BindingDoubtful
	case b.OwnerUID == "":
		return BindingLeave
	case b.MarkedUID == b.OwnerUID && bound:
		return BindingSettled
	case b.MarkedUID == "" || b.MarkedUID == b.OwnerUID:
		// The mark of the owner that exists, without our own, was written before
		// there was one to write.
		return BindingBind
	case bound:
		return BindingReplaced
	default:
		return BindingAdopt
	}
}
