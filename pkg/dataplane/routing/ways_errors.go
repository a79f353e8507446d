package routing

import (
	"errors"
)

// wayError is what failed about one table of ways alone.
type wayError struct {
	error
	table int
}

func (e wayError) Unwrap() error { return e.error }

// ofWay says of which table of ways an error is, if it is of one.
func ofWay(table int, err error) error {
	if table < firstWay {
		return err
	}
	return wayError{err, table}
}

// WayErrors divides what Ensure failed with into the errors of single ways, by their table, and
// the rest.
func WayErrors(err error) (of map[int]error, rest error) {
	of = map[int]error{}
	var divide func(err error) (rest error)
	divide = func(err error) error {
		var way wayError
		joined, isJoined := err.(interface{ Unwrap() []error })
		switch {
		case isJoined:
			var errs []error
			for _, err := range joined.Unwrap() {
				errs = append(errs, divide(err))
			}
			return errors.Join(errs...)
		case errors.As(err, &way):
			of[way.table] = errors.Join(of[way.table], way.error)
			return nil
		default:
			return err
		}
	}
	return of, divide(err)
}
