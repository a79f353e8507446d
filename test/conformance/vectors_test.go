package conformance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
	"github.com/egressip-operator/egressip-operator/test/conformance"
)

// testVectors compares the schema and the columns of kubectl get.
func testVectors(t *testing.T, c *cluster, corpus *conformance.Corpus, deviations map[string]string) {
	t.Helper()
	var count tally
	total := len(corpus.Vectors.Validation) + len(corpus.Vectors.Objects) + len(corpus.Vectors.Columns)
	for _, v := range corpus.Vectors.Validation {
		name := "schema/" + v.Field + "=" + word(v.Value)
		t.Run(name, func(t *testing.T) {
			object, err := objectWith(v.Field, v.Value)
			if err != nil {
				count.judge(t, name, deviations, []string{err.Error()})
				return
			}
			count.judge(t, name, deviations, accepted(t.Context(), c, object, v.SchemaAccepts))
		})
	}
	for i, v := range corpus.Vectors.Objects {
		name := objectName(i, v.From)
		t.Run(name, func(t *testing.T) {
			want := v.SchemaAccepts != nil && *v.SchemaAccepts || v.ControllerAccepts != nil && *v.ControllerAccepts
			object, err := objectOf(v.Kind, v.Object)
			if err != nil {
				count.judge(t, name, deviations, []string{err.Error()})
				return
			}
			count.judge(t, name, deviations, accepted(t.Context(), c, object, want))
		})
	}
	for _, v := range corpus.Vectors.Columns {
		name := "columns/" + v.Kind
		t.Run(name, func(t *testing.T) {
			count.judge(t, name, deviations, columns(t, c, v.Kind, v.Row, v.Headers, v.Cells))
		})
	}
	count.report(t, "vectors on an API server", total)
}

func objectName(i int, from string) string { return fmt.Sprintf("schema/object %d (%s)", i+1, from) }

// word writes a value as the corpus does.
func word(value any) string {
	if number, ok := value.(float64); ok {
		return fmt.Sprintf("%.0f", number)
	}
	return fmt.Sprint(value)
}

// objectWith is an object that is valid except for one value.
func objectWith(field string, value any) (*unstructured.Unstructured, error) {
	namespace := map[string]any{"metadata.name": "vector", "netname": "vector", "netid": 4711}
	host := map[string]any{"metadata.name": "vector", "host": "vector", "hostIP": "192.168.7.10", "subnet": "10.128.0.0/23"}
	switch field {
	case "netnamespace.egressIPs[]":
		namespace["egressIPs"] = []any{value}
		return objectOf("NetNamespace", namespace)
	case "netnamespace.netid":
		namespace["netid"] = word(value)
		return objectOf("NetNamespace", namespace)
	case "hostsubnet.egressIPs[]":
		host["egressIPs"] = []any{value}
	case "hostsubnet.egressCIDRs[]":
		host["egressCIDRs"] = []any{value}
	case "hostsubnet.host":
		// The name of the object says the same, as it must.
		host["host"], host["metadata.name"] = value, value
	case "hostsubnet.hostIP":
		host["hostIP"] = value
	case "hostsubnet.subnet":
		host["subnet"] = value
	default:
		return nil, fmt.Errorf("unknown field %q", field)
	}
	return objectOf("HostSubnet", host)
}

// objectOf makes an object of fields; those of metadata have names with a dot.
func objectOf(kind string, fields map[string]any) (*unstructured.Unstructured, error) {
	if resources()[kind] == "" {
		return nil, fmt.Errorf("unknown kind %q", kind)
	}
	u := &unstructured.Unstructured{Object: make(map[string]any)}
	u.SetGroupVersionKind(v1.GroupVersion().WithKind(kind))
	name, _ := fields["host"].(string)
	u.SetName(name)
	for field, value := range fields {
		switch field {
		case "metadata.name":
			u.SetName(fmt.Sprint(value))
		case "metadata.annotations":
			given, ok := value.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("the annotations %v are no object", value)
			}
			annotations := make(map[string]string)
			for key, text := range given {
				annotations[key] = fmt.Sprint(text)
			}
			u.SetAnnotations(annotations)
		case "netid":
			u.Object[field] = json.Number(fmt.Sprint(value))
		default:
			u.Object[field] = value
		}
	}
	return u, nil
}

// resources are the kinds of the corpus, and how the API names them in paths.
func resources() map[string]string {
	return map[string]string{"NetNamespace": "netnamespaces", "HostSubnet": "hostsubnets"}
}

// accepted asks the API server without creating anything.
func accepted(ctx context.Context, c *cluster, object *unstructured.Unstructured, want bool) []string {
	err := c.Create(ctx, object, client.DryRunAll)
	switch {
	case err != nil && !apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err):
		return []string{err.Error()}
	case (err == nil) != want:
		return []string{fmt.Sprintf("accepted: %t (%v)", err == nil, err)}
	}
	return nil
}

// columns asks for the table that kubectl get prints.
func columns(t *testing.T, c *cluster, kind string, row map[string]any, headers, cells []string) []string {
	t.Helper()
	row = maps.Clone(row)
	row["metadata.name"] = row["name"]
	delete(row, "name")
	if kind == "NetNamespace" {
		row["netname"] = row["metadata.name"]
		row["netid"] = word(row["netid"])
	}
	object, err := objectOf(kind, row)
	if err != nil {
		return []string{err.Error()}
	}
	if err := c.Create(t.Context(), object); err != nil {
		return []string{err.Error()}
	}
	t.Cleanup(func() {
		if err := c.Delete(context.WithoutCancel(t.Context()), object); err != nil {
			t.Error(err)
		}
	})
	table, err := c.table(t.Context(), "/apis/network.openshift.io/v1/"+resources()[kind]+"/"+object.GetName())
	if err != nil {
		return []string{err.Error()}
	}
	var gotHeaders, gotCells []string
	for i, column := range table.ColumnDefinitions {
		if column.Priority > 0 {
			continue
		}
		gotHeaders = append(gotHeaders, strings.ToUpper(column.Name))
		cell := ""
		if value := table.Rows[0].Cells[i]; value != nil {
			cell = word(value)
		}
		gotCells = append(gotCells, cell)
	}
	var wrong []string
	if !slices.Equal(headers, gotHeaders) {
		wrong = append(wrong, fmt.Sprintf("headers: want %q, got %q", headers, gotHeaders))
	}
	if !slices.Equal(cells, gotCells) {
		wrong = append(wrong, fmt.Sprintf("cells: want %q, got %q", cells, gotCells))
	}
	return wrong
}

func (c *cluster) table(ctx context.Context, path string) (*metav1.Table, error) {
	httpClient, err := rest.HTTPClientFor(c.cfg)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.cfg.Host, "/")+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	response, err := httpClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	var table metav1.Table
	if err := json.Unmarshal(data, &table); err != nil {
		return nil, fmt.Errorf("%s: %w", data, err)
	}
	if len(table.Rows) != 1 {
		return nil, fmt.Errorf("%d rows: %s", len(table.Rows), data)
	}
	return &table, nil
}
