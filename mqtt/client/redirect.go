package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/anyquic/anyquic/mqtt/packet"
)

// maxHops is how many servers in a row may name another, each before a connection has
// lasted.
const maxHops = 5

// maxReferences is how many servers of one reference are tried.
const maxReferences = 8

// busyAttempt is the attempt of the back-off with which a client answers a server
// that is busy.
const busyAttempt = 4

// connectFollowing is connect, to the servers that servers name.
func (c *Client) connectFollowing(ctx context.Context) (*conn, error) {
	for {
		cn, err := c.connect(ctx)
		if err == nil || !c.follow(err) {
			return cn, err
		}
	}
}

// follow reports whether err names another server that the next attempt goes to.
func (c *Client) follow(err error) bool {
	code, reference := referenceOf(err)
	if !c.cfg.FollowServerReference || reference == "" || c.route.last == nil || c.ctx.Err() != nil {
		return false
	}
	targets := c.refer(c.route.last, reference)
	if len(targets) == 0 {
		c.log.Warn("the server names another in a way that cannot be followed", "reference", reference)
		return false
	}
	if c.route.hops++; c.route.hops > maxHops {
		c.log.Warn("servers name each other", "reference", reference, "hops", maxHops)
		c.route.hops = 0 // after the delay that comes now
		return false
	}
	c.log.Info("the server names another", "reference", reference, "for good", code == packet.ServerMoved)
	if code == packet.ServerMoved {
		c.route.targets = targets
	} else {
		c.route.detour = targets
	}
	return true
}

// referenceOf returns the reason code of what a server has said and the other server
// it has named, empty if it has not.
func referenceOf(err error) (packet.ReasonCode, string) {
	var code packet.ReasonCode
	var reference string
	var refused *ConnectError
	var disconnected *DisconnectError
	switch {
	case errors.As(err, &refused):
		code, reference = refused.Code, refused.ServerReference
	case errors.As(err, &disconnected):
		code, reference = disconnected.Code, disconnected.ServerReference
	}
	if code != packet.UseAnotherServer && code != packet.ServerMoved {
		reference = ""
	}
	return code, reference
}

// busy reports whether a server has said that it has too much to do.
func busy(err error) bool {
	var refused *ConnectError
	var disconnected *DisconnectError
	var code packet.ReasonCode
	switch {
	case errors.As(err, &refused):
		code = refused.Code
	case errors.As(err, &disconnected):
		code = disconnected.Code
	}
	switch code {
	case packet.ServerBusy, packet.QuotaExceeded, packet.ConnectionRateExceeded, packet.ServerUnavailable:
		return true
	}
	return false
}

// refer returns the servers of a reference: hosts, with or without a port, and
// spaces between them, as MQTT 5, Section 4.11 suggests. Everything else is as in
// from.
func (c *Client) refer(from *target, reference string) []*target {
	var targets []*target
	for host := range strings.FieldsSeq(reference) {
		if len(targets) == maxReferences {
			break
		}
		if strings.ContainsAny(host, "/@?#%\\") {
			continue
		}
		if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
			host = "[" + host + "]"
		}
		s := fmt.Sprintf("%s://%s%s", from.url.Scheme, host, from.url.RequestURI())
		if t, err := parseURL(s, c.cfg.Dialers); err == nil {
			targets = append(targets, t)
		}
	}
	return targets
}
