// Package statusapply writes the status of objects by server-side apply, also where the definition of
// their kind is older than we are and lacks some fields.
//
// It keeps no state.
package statusapply
