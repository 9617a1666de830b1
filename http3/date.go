package http3

import (
	"net/http"
	"sync/atomic"
	"time"
)

// A dateText is the Date of the responses of one second.
type dateText struct {
	second int64
	text   string
}

var lastDate atomic.Pointer[dateText]

// dateNow returns the time as it stands in the field Date.
//
// https://www.rfc-editor.org/rfc/rfc9110#section-6.6.1
func dateNow() string {
	now := time.Now()
	if d := lastDate.Load(); d != nil && d.second == now.Unix() {
		return d.text
	}
	d := &dateText{now.Unix(), now.UTC().Format(http.TimeFormat)}
	lastDate.Store(d)
	return d.text
}
