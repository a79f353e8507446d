package testenv

import (
	"net/netip"
	"reflect"
	"testing"
)

// EachField calls each for every field of a struct, with a value in which that field alone
// is set. It is for tests that a comparison leaves no field out: one that is added later is
// tried as well. given are values for fields that are interfaces.
func EachField[T any](tb testing.TB, each func(name string, value T), given ...any) {
	tb.Helper()
	for i := range reflect.TypeFor[T]().NumField() {
		var value T
		fill(tb, reflect.ValueOf(&value).Elem().Field(i), given)
		each(reflect.TypeFor[T]().Field(i).Name, value)
	}
}

// fill gives a value another content than none.
func fill(tb testing.TB, v reflect.Value, given []any) {
	tb.Helper()
	for _, g := range append(given, netip.MustParseAddr("192.0.2.1"), netip.MustParsePrefix("192.0.2.0/24")) {
		if reflect.TypeOf(g).AssignableTo(v.Type()) {
			v.Set(reflect.ValueOf(g))
			return
		}
	}
	switch {
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.Kind() == reflect.String:
		v.SetString("x")
	case v.CanInt():
		v.SetInt(1)
	case v.CanUint():
		v.SetUint(1)
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(tb, v.Index(0), given)
	case v.Kind() == reflect.Map:
		key := reflect.New(v.Type().Key()).Elem()
		fill(tb, key, given)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, reflect.New(v.Type().Elem()).Elem())
	case v.Kind() == reflect.Struct:
		for _, field := range v.Fields() {
			fill(tb, field, given)
		}
	default:
		tb.Fatalf("no value for a %s", v.Type())
	}
}
