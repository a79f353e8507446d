package statusapply

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Apply writes object, of which it has the status alone, and forces the ownership of its fields.
// object is what is stored then. Fields that the definition of the kind does not have are left out,
// and returned by their paths, such as status.egressIPs.gateway: whatever else there is to say
// is written.
func Apply(ctx context.Context, w client.SubResourceWriter, object *unstructured.Unstructured, owner string) (missing []string, err error) {
	for {
		err = w.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(owner), client.ForceOwnership)
		if err == nil {
			return missing, nil
		}
		left := false
		for _, path := range paths(err.Error()) {
			if remove(object.Object, strings.Split(path, ".")) {
				missing, left = append(missing, path), true
			}
		}
		if !left {
			return missing, err
		}
	}
}

// paths are those of the fields that an answer of the API server names, without keys of list items. It
// names them in its message alone.
func paths(answer string) (list []string) {
	undeclared, key := regexp.MustCompile(`\.(status\.\S+): field not declared in schema`), regexp.MustCompile(`\[[^\]]*\]`)
	for _, found := range undeclared.FindAllStringSubmatch(answer, -1) {
		path := key.ReplaceAllString(found[1], "")
		if !slices.Contains(list, path) {
			list = append(list, path)
		}
	}
	return list
}

// remove deletes a field, in all items of lists on its way, and reports whether it was there.
func remove(value any, path []string) (there bool) {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			there = remove(item, path) || there
		}
	case map[string]any:
		child, has := value[path[0]]
		if len(path) > 1 {
			return has && remove(child, path[1:])
		}
		delete(value, path[0])
		return has
	}
	return there
}
