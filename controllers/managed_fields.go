package controllers

import (
	"encoding/json"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ourAnnotation reports whether this controller wrote the annotation, rather than
// someone who applied YAML that another cluster's controller had filled. The
// object must have been read with its managed fields.
func ourAnnotation(object client.Object, key string) (bool, error) {
	for _, entry := range object.GetManagedFields() {
		if entry.Manager != FieldManager || entry.FieldsV1 == nil {
			continue
		}
		encoded, err := entry.FieldsV1.MarshalJSON()
		if err != nil {
			return false, fmt.Errorf("read managed fields of %s: %w", object.GetName(), err)
		}
		var fields struct {
			Metadata struct {
				Annotations map[string]any `json:"f:annotations"`
			} `json:"f:metadata"`
		}
		if err := json.Unmarshal(encoded, &fields); err != nil {
			return false, fmt.Errorf("read managed fields of %s: %w", object.GetName(), err)
		}
		if _, ok := fields.Metadata.Annotations["f:"+key]; ok {
			return true, nil
		}
	}
	return false, nil
}
