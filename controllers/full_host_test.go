package controllers_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "github.com/egressip-operator/egressip-operator/api/v1"
)

// TestStatusOfFullHost: the status of a host with as many egress IPs as it may have is
// written as that of any other. How long it takes is logged: a verdict waits for it.
func TestStatusOfFullHost(t *testing.T) {
	const claims, writes = 512, 10
	a := startAPI(t)
	h := hostSubnet("node1")
	for i := range claims {
		h.EgressIPs = append(h.EgressIPs, fmt.Sprintf("10.1.%d.%d", i/250, 1+i%250))
	}
	a.create(t, h)
	logMedian(t, "status", writes, func(i int) error {
		return a.writeOnline(t.Context(), h.Name, fmt.Sprint(i))
	})
	ips := h.EgressIPs
	write := func() error {
		patch := fmt.Sprintf(`{"egressIPs": [%s]}`, quoted(ips))
		return a.Patch(t.Context(), hostSubnet(h.Name), client.RawPatch(types.MergePatchType, []byte(patch)))
	}
	logMedian(t, "egressIPs", writes, func(int) error {
		ips = slices.Concat(ips[1:], ips[:1])
		return write()
	})
	ips[claims-1] = ips[0] + "/24"
	if err := write(); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "list each egress IP once") {
		t.Errorf("a claim that is there twice: %v", err)
	}
}

// logMedian logs how long a write takes.
func logMedian(t *testing.T, what string, writes int, write func(i int) error) {
	t.Helper()
	var took []time.Duration
	for i := range writes {
		began := time.Now()
		if err := write(i); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("%d writes of %s: median %s, slowest %s", writes, what,
		took[writes/2].Round(100*time.Microsecond), took[writes-1].Round(100*time.Microsecond))
}

// writeOnline writes the condition Online with that message.
func (a *api) writeOnline(ctx context.Context, host, message string) error {
	u := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"conditions": []any{map[string]any{
		"type": v1.ConditionOnline, "status": "False", "reason": "Test", "message": message,
		"lastTransitionTime": "2026-01-01T00:00:00Z",
	}}}}}
	u.SetGroupVersionKind(v1.GroupVersion().WithKind("HostSubnet"))
	u.SetName(host)
	return a.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("test"), client.ForceOwnership)
}

// TestListsAreCheckedWhenTheyChange: the API server evaluates the rules of an object on
// each write of its status too. One that compares the items of a list with each other
// takes it seconds for a long list, so such a rule looks first whether the list is the
// same as before.
func TestListsAreCheckedWhenTheyChange(t *testing.T) {
	checked := 0
	for file, schema := range schemas(t) {
		for name, list := range schema.Properties {
			for _, rule := range list.XValidations {
				checked++
				always := rule.OptionalOldSelf == nil || !*rule.OptionalOldSelf || !strings.HasPrefix(rule.Rule, "oldSelf.orValue([]) == self || ")
				if list.Type == "array" && always {
					t.Errorf("%s: the rule of %s is evaluated where the list is as it was: %s", file, name, rule.Rule)
				}
			}
		}
	}
	if checked == 0 {
		t.Error("found no rules")
	}
}

// TestListsOfStatusAreBounded: each list of a status has a greatest length, so that no
// agent can write an object that the API server cannot store. Strings in them have one,
// too, unless the type says what they may be.
func TestListsOfStatusAreBounded(t *testing.T) {
	checked := 0
	for file, schema := range schemas(t) {
		eachProperty("status", schema.Properties["status"], func(path string, p apiextensionsv1.JSONSchemaProps) {
			if p.AdditionalProperties != nil {
				t.Errorf("%s: %s is a map", file, path)
			}
			if p.Type != "array" {
				return
			}
			checked++
			if p.MaxItems == nil {
				t.Errorf("%s: %s has no maxItems", file, path)
			}
			if items := p.Items.Schema; items.Type == "string" && items.MaxLength == nil && items.Enum == nil {
				t.Errorf("%s: the strings of %s have no maxLength", file, path)
			}
		})
	}
	if checked < 15 {
		t.Errorf("found %d lists", checked)
	}
}

// eachProperty calls do for a part of a schema and all that is in it.
func eachProperty(path string, p apiextensionsv1.JSONSchemaProps, do func(path string, p apiextensionsv1.JSONSchemaProps)) {
	do(path, p)
	for name, inner := range p.Properties {
		eachProperty(path+"."+name, inner, do)
	}
	if p.Items != nil && p.Items.Schema != nil {
		eachProperty(path+"[]", *p.Items.Schema, do)
	}
}

// schemas are those of our kinds, by the names of their files.
func schemas(t *testing.T) map[string]*apiextensionsv1.JSONSchemaProps {
	t.Helper()
	files, err := filepath.Glob("../config/crd/network.openshift.io_*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %q: %v", files, err)
	}
	all := make(map[string]*apiextensionsv1.JSONSchemaProps)
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(content, &crd); err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(file)] = crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	}
	return all
}
