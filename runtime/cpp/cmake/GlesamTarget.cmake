# The compile options of every target.

function(glesam_link_options target)
  if(GLESAM_SANITIZE)
    target_link_options(${target} PRIVATE -fsanitize=${GLESAM_SANITIZE})
  endif()
endfunction()

function(glesam_target target)
  target_compile_features(${target} PRIVATE cxx_std_17)
  set_target_properties(${target} PROPERTIES
    CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  # Fused multiply-adds exist only on some processors. Without contraction to them, the
  # preprocessing is bit-exact on all processors.
  target_compile_options(${target} PRIVATE -Wall -Wextra -ffp-contract=off)
  if(GLESAM_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(GLESAM_SANITIZE)
    target_compile_options(${target} PRIVATE
      -fsanitize=${GLESAM_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  endif()
  glesam_link_options(${target})
endfunction()
