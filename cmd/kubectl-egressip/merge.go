package main

import (
	"encoding/json"
	"fmt"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// applied returns an object as "kubectl apply" of what is written in a file makes it: with three
// sides, if an apply has noted the last one. current is nil for an object that does not exist. A
// status in the file does not count, as the API server ignores it.
func applied[T any](current *T, written json.RawMessage) (T, error) {
	var merged T
	modified, err := withoutStatus(written)
	if err != nil {
		return merged, err
	}
	if current == nil {
		return merged, json.Unmarshal(modified, &merged)
	}
	now, err := json.Marshal(current)
	if err != nil {
		return merged, err
	}
	var last []byte
	if object, ok := any(current).(client.Object); ok {
		last = []byte(object.GetAnnotations()[corev1.LastAppliedConfigAnnotation])
	}
	patch, err := jsonmergepatch.CreateThreeWayJSONMergePatch(last, modified, now)
	if err != nil {
		return merged, fmt.Errorf("compare with what is stored: %w", err)
	}
	result, err := jsonpatch.MergePatch(now, patch)
	if err != nil {
		return merged, fmt.Errorf("merge with what is stored: %w", err)
	}
	return merged, json.Unmarshal(result, &merged)
}

// withoutStatus returns an object of a file without its status, and without what only the API server
// writes.
func withoutStatus(written json.RawMessage) ([]byte, error) {
	var object map[string]any
	if err := json.Unmarshal(written, &object); err != nil {
		return nil, err
	}
	delete(object, "status")
	if metadata, ok := object["metadata"].(map[string]any); ok {
		for _, field := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "deletionTimestamp"} {
			delete(metadata, field)
		}
	}
	return json.Marshal(object)
}
