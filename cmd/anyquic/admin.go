package main

import (
	"encoding/json"
	"errors"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/anyquic/anyquic/mqtt/broker"
)

// The paths on the metrics listener that show and end single clients.
const (
	clientsPath = "/debug/clients"
	kickPath    = "/debug/clients/kick"
)

// clientsLimit is how many clients are listed unless the query says otherwise.
const clientsLimit = 1000

// clientList is what clientsPath answers.
type clientList struct {
	Found   int                   `json:"found"` // Clients are the first of them
	Clients []broker.ClientStatus `json:"clients"`
}

// kickRequest is what kickPath takes.
type kickRequest struct {
	Client string `json:"client"`
}

// admin adds what only somebody on this machine may see and do.
func (o *operations) admin(mux *http.ServeMux) {
	mux.Handle("GET "+clientsPath, localOnly(o.listClients))
	mux.Handle("POST "+kickPath, localOnly(o.kick))
}

// listClients answers with the clients that the query asks for: slow=1, client=ID,
// limit=N.
func (o *operations) listClients(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	q := broker.ClientQuery{ClientID: v.Get("client"), Limit: clientsLimit}
	var err error
	if s := v.Get("slow"); s != "" {
		if q.Slow, err = strconv.ParseBool(s); err != nil {
			http.Error(w, "slow is not 0 or 1", http.StatusBadRequest)
			return
		}
	}
	if s := v.Get("limit"); s != "" {
		if q.Limit, err = strconv.Atoi(s); err != nil || q.Limit < 1 {
			http.Error(w, "limit is not a number above 0", http.StatusBadRequest)
			return
		}
	}
	list, found := o.broker.Clients(q)
	if list == nil {
		list = []broker.ClientStatus{}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(clientList{found, list}) // nobody to tell if the client is gone
}

// maxKick bounds the body of a request to kick: a client identifier in JSON, every
// character of it escaped.
const maxKick = 6*65535 + 64 // bytes

// kick disconnects the client that the body names.
func (o *operations) kick(w http.ResponseWriter, r *http.Request) {
	// A page in a browser on this machine can send a form here, but not this type
	// without being asked for leave first.
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		http.Error(w, `send {"client": "ID"} as application/json`, http.StatusUnsupportedMediaType)
		return
	}
	var req kickRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxKick)).Decode(&req); err != nil || req.Client == "" {
		http.Error(w, `send {"client": "ID"}`, http.StatusBadRequest)
		return
	}
	if !o.broker.Kick(req.Client) {
		http.Error(w, "no such client is connected", http.StatusNotFound)
		return
	}
	o.log.Warn("client disconnected by the administrator", "client", req.Client, "from", r.RemoteAddr)
	w.WriteHeader(http.StatusNoContent)
}

// localOnly answers requests from this machine, and others with 403. A page that has
// its name point to this machine is not let in either: it has another Host. Nor is
// what somebody forwards.
func localOnly(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := local(r); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		h(w, r)
	})
}

var errNotLocal = errors.New("only for requests from this machine, to localhost, 127.0.0.1 or [::1]")

func local(r *http.Request) error {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !from.Addr().Unmap().IsLoopback() {
		return errNotLocal
	}
	if forwarded(r) {
		return errNotLocal
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" {
		return nil
	}
	if len(host) > 2 && host[0] == '[' {
		host = host[1 : len(host)-1]
	}
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return errNotLocal
	}
	return nil
}
