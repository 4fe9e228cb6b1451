;; Factorials. Push a whole number from 0 to 20; the output is its factorial.
;;
;; The smallest useful guest: it reads the payload as it was pushed, and writes digits. It does not read
;; the text that the host puts at `alloc`, so that has a place where nothing else is.
(module
  (import "onrush" "payload_len" (func $payload_len (result i32)))
  (import "onrush" "payload_copy" (func $payload_copy (param i32)))
  (import "onrush" "fail" (func $fail (param i32 i32)))

  ;; 0: the error; 64: the payload; 128: the output ends here; 1024: the call's text.
  (memory (export "memory") 1)
  (data (i32.const 0) "push a whole number from 0 to 20")

  (func (export "alloc") (param $len i32) (result i32)
    (drop (memory.grow (i32.div_u (local.get $len) (i32.const 65536))))
    (i32.const 1024))

  ;; Does not come back.
  (func $refuse
    (call $fail (i32.const 0) (i32.const 32)))

  (func $parse (result i32)
    (local $len i32) (local $at i32) (local $digit i32) (local $number i32)
    (local.set $len (call $payload_len))
    (if (i32.or (i32.eqz (local.get $len)) (i32.gt_u (local.get $len) (i32.const 2)))
      (then (call $refuse)))
    (call $payload_copy (i32.const 64))
    (loop $digits
      (local.set $digit
        (i32.sub (i32.load8_u (i32.add (i32.const 64) (local.get $at))) (i32.const 48)))
      (if (i32.gt_u (local.get $digit) (i32.const 9))
        (then (call $refuse)))
      (local.set $number
        (i32.add (i32.mul (local.get $number) (i32.const 10)) (local.get $digit)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $digits (i32.lt_u (local.get $at) (local.get $len))))
    (if (i32.gt_u (local.get $number) (i32.const 20))
      (then (call $refuse)))
    (local.get $number))

  (func $factorial (param $number i32) (result i64)
    (local $product i64)
    (local.set $product (i64.const 1))
    (block $done
      (loop $next
        (br_if $done (i32.lt_u (local.get $number) (i32.const 2)))
        (local.set $product
          (i64.mul (local.get $product) (i64.extend_i32_u (local.get $number))))
        (local.set $number (i32.sub (local.get $number) (i32.const 1)))
        (br $next)))
    (local.get $product))

  (func (export "handle") (param $text i32) (param $len i32) (result i64)
    (local $number i64) (local $at i32)
    (local.set $number (call $factorial (call $parse)))
    (local.set $at (i32.const 128))
    (loop $digits
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $number) (i64.const 10)))))
      (local.set $number (i64.div_u (local.get $number) (i64.const 10)))
      (br_if $digits (i64.ne (local.get $number) (i64.const 0))))
    ;; address << 32 | length
    (i64.or
      (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32))
      (i64.extend_i32_u (i32.sub (i32.const 128) (local.get $at))))))
